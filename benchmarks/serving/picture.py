"""The picture of the page for the documents: a real model answers in a real browser, nothing is written by hand.

    python -m benchmarks.serving.picture [MODEL] [--asked KIND ...] [--most 48] [--out docs/page.png]

Of each kind of question in `ASKED`, samples of the playground's split `test` are asked as the page asks them, after
what was asked before, until one is answered right; that one is then asked on the page. What was tried and what was
right is printed, and belongs under the picture. Where none of ``--most`` is right, the next kind takes its place.
Wants chromium, playwright and espeakng-loader.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import uvicorn
from playwright.sync_api import Locator, Page, expect, sync_playwright

import weft
from weft.conversation import Audio, Conversation, Message, Task, Text
from weft.evaluation.pairs import Pair
from weft.evaluation.right import is_right
from weft.generation import Model, Options
from weft.playground import world
from weft.playground.chance import Chance
from weft.playground.speech import say_aloud
from weft.serving.app import build_app
from weft.serving.engine import LocalEngine
from weft.serving.run import Protocol

# For each exchange, kinds of samples: the first of which one is answered right.
ASKED = (("word_times", "transcribe", "digits"), ("detection", "refer", "vqa"))
TIMES = Task("transcribe", {"timestamps": True})  # what the page asks for unless it is told otherwise
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIZE = {"width": 1000, "height": 640}
TOGETHER = 8


def sample(kind: str, n: int) -> Conversation:
    """Sample ``n`` of a kind of the playground's, or three digits said aloud, where the words alone are to be right."""
    if kind != "digits":
        return world.sample(n, "test", 0, [kind])
    chance = Chance(np.random.default_rng(n), "test")
    said = " ".join(chance.one(DIGITS) for _ in range(3))
    asked = Message("user", (say_aloud(chance, said).audio, TIMES))
    return Conversation((asked, Message("assistant", (Text(said),))), f"digits-{n}")


def asked(sample: Conversation) -> Conversation:
    """The sample as the page asks it: no language said, word times wanted."""
    first, answer = sample.messages[:2]
    parts = [part for part in first.parts if not isinstance(part, Task)]
    task = first.task
    if any(isinstance(part, Audio) for part in parts):
        task = TIMES
    return Conversation((Message("user", (*parts, *([task] if task else []))), answer), sample.id)


def first_right(model: Model, kinds: tuple[str, ...], most: int, before: tuple[Message, ...]) -> Conversation | None:
    """The first sample that is answered right when it is asked after ``before``; its answer is that of the model."""
    for kind in kinds:
        for start in range(0, most, TOGETHER):
            samples = [asked(sample(kind, n)) for n in range(start, min(start + TOGETHER, most))]
            later = [Conversation((*before, s.messages[0])) for s in samples]
            replies = model.chat_batch(later, Options(64), batch_size=TOGETHER)
            for n, (one, reply) in enumerate(zip(samples, replies, strict=True), start + 1):
                # A yes or no is right half of the time, whatever is seen.
                if is_right(Pair.of(one, reply.parts)) and reply.text.lower() not in ("yes", "no"):
                    print(f"{kind}: the first right answer is that to sample {n}, {one.id}: {reply.text!r}", flush=True)
                    return Conversation((one.messages[0], Message("assistant", reply.parts)), one.id)
        print(f"{kind}: none of {most} is answered right", flush=True)
    return None


def attach(page: Page, sample: Conversation, folder: Path) -> None:
    filed = world.filed(sample, folder, 1)
    before = page.locator(".thumb").count()
    page.set_input_files("#files", [str(medium.source) for medium in (*filed.images, *filed.audios)])
    expect(page.locator(".thumb")).to_have_count(before + len(filed.images) + len(filed.audios))


def ask(page: Page, sample: Conversation, folder: Path) -> Locator:
    """Asks by attaching, clicking and typing; gives the place of the answer, which is whole."""
    turns = page.locator("#turns > li").count()
    attach(page, sample, folder)
    message = sample.messages[0]
    if message.task is not None:
        chip = page.locator(f".chip[data-name={message.task.name}][aria-pressed]")
        if not chip.count():
            page.get_by_role("button", name="More …").click()
        chip.click()
    page.fill("#text", message.text)
    page.keyboard.press("Enter")
    answer = page.locator("#turns > li .answer").nth(turns)
    expect(answer).to_have_attribute("aria-busy", "false", timeout=600_000)
    return answer


def drawn(address: str, samples: list[Conversation], out: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox", "--mute-audio"])
        page = opened.new_page(viewport=SIZE)
        page.goto(address)
        page.wait_for_selector(".example")
        for sample in samples:
            answer = ask(page, sample, Path(folder))
            print(f"on the page: {answer.locator('.body').inner_text()!r}", flush=True)
        # As high as all of the conversation, so that nothing is cut.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({**SIZE, "height": height})
        page.evaluate("scrollTo(0, 0)")
        if words := page.locator(".word").count():
            page.locator(".word").nth(words // 2).hover()  # it lights up on the waveform too
        page.screenshot(path=out)
        opened.close()
    print(f"{out}: {SIZE['width']} x {height}")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("model", nargs="?", default="bundled")
    given.add_argument("--asked", nargs="+", metavar="KIND", help="one kind for each exchange, in place of all")
    given.add_argument("--out", type=Path, default=Path("docs/page.png"))
    given.add_argument("--most", type=int, default=48)
    given = given.parse_args()
    model = weft.load(given.model, dtype="float32")
    samples: list[Conversation] = []
    for kinds in [(kind,) for kind in given.asked] if given.asked else ASKED:
        before = tuple(message for one in samples for message in one.messages)
        if (found := first_right(model, kinds, given.most, before)) is not None:
            samples.append(found)
    app = build_app(LocalEngine(model), given.model)
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Protocol, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        drawn(f"http://127.0.0.1:{port}/", samples, given.out)
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
