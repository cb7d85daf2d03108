"""The page in a real browser, by clicking and typing: everything that it offers, with an engine that answers as told.

One browser and one page serve all tests; each begins a new conversation.
"""

import json
import re
import shutil

import pytest
from PIL import Image as Pillow
from scripted import Scripted, patient
from serving_kit import coded, png, wav

from weft.conversation import Audio, Box, Image, Text, Word, Words
from weft.generation import Reply
from weft.generation.spoken import Written
from weft.generation.windows import WindowPrompt
from weft.serving import subtitles
from weft.serving.app import PAGE
from weft.serving.limits import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium"),
]
expect = playwright.expect  # the page's policy forbids what waiting for an expression would take
expect.set_options(timeout=60_000)
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--mute-audio"]
CUP, MOON = (0.2, 0.45, 0.42, 0.68), (0.43, 0.7, 0.53, 0.86)
WORDS = tuple(
    Word(*w) for w in [("the", 0.1, 0.2), ("red", 0.2, 0.4), ("cup.", 0.4, 0.7), ("A", 2.0, 2.2), ("moon", 2.2, 2.6)]
)
LIMITS = Limits(tokens=1024)


def reply(conversation):
    """Parts of an answer that fit what is asked; "fail" fails."""
    message = conversation.messages[-1]
    task = message.task.name if message.task else None
    image = len(conversation.images) - 1 if len(conversation.images) > 1 else None
    if "fail" in message.text:
        raise RuntimeError("the engine broke")
    if task == "refer":
        return [Box((CUP,), message.text, image)]
    if task == "grounded_caption":
        return [Box((CUP,), "a red cup", image), Text(" beside "), Box((MOON,), "a blue moon", image), Text(".")]
    if task == "transcribe":
        return [Words(WORDS, len(conversation.audios) - 1 if len(conversation.audios) > 1 else None)]
    return [Text(f" Answer {len(conversation.messages) // 2 + 1} to: {message.text or task or 'what was said'}")]


@pytest.fixture(scope="module")
def engine():
    return Scripted(patient(), reply)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        yield (opened := started.chromium.launch(executable_path=BROWSER, args=FLAGS))
        opened.close()


@pytest.fixture(scope="module")
def opened(browser, serve, engine):
    """The page, its requests and what its console complained of."""
    with serve(None, LIMITS, engine) as served:
        context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(page_address(served))
        page.wait_for_selector(".example")
        yield page
        context.close()


def page_address(served):
    return f"http://127.0.0.1:{served.port}/"


@pytest.fixture
def page(opened, engine):
    opened.evaluate("document.querySelectorAll('dialog[open]').forEach(one => one.close())")
    opened.click("#new")
    engine.asked.clear(), engine.options.clear()
    engine.cancelled, engine.pause = 0, 0.0
    yield opened
    complaints, opened.complaints[:] = list(opened.complaints), []
    assert complaints == []


def attach(page, *files):
    named = [
        {"name": f"{i}.{kind}", "mimeType": f"{'image' if kind == 'png' else 'audio'}/{kind}", "buffer": data}
        for i, (kind, data) in enumerate(files)
    ]
    before = page.locator(".thumb").count()
    page.set_input_files("#files", named)
    expect(page.locator(".thumb")).to_have_count(before + len(files))


def ask(page, text="", task=None):
    """Sends a question and gives the place of its answer, which is whole."""
    turns = page.locator("#turns > li").count()
    if task:
        page.click(f".chip[data-name={task}]")
    page.fill("#text", text)
    page.keyboard.press("Enter")
    answer = page.locator("#turns > li .answer").nth(turns)
    expect(answer).to_have_attribute("aria-busy", "false")
    if "fail" not in text:
        assert answer.locator(".failure").all_inner_texts() == []
    return answer


def lit(answer):
    return answer.locator(".lit").evaluate_all("all => all.map(one => one.dataset.number)")


def test_an_example_shows_each_phrase_in_the_colour_of_its_box_and_hovering_links_both_ways(page, engine):
    page.click(".example:has-text('Describe with boxes')")
    answer = page.locator(".answer[aria-busy=false]")
    assert answer.locator(".text").inner_text() == "a red cup beside a blue moon."
    assert answer.locator(".phrase").count() == answer.locator(".box").count() == 2
    for number in ("0", "2"):
        own = [answer.locator(f"{kind}[data-number='{number}']") for kind in (".phrase", ".box", ".tag")]
        colors = {one.evaluate("one => getComputedStyle(one).getPropertyValue('--own')") for one in own}
        assert len(colors) == 1
        own[0].hover()
        assert lit(answer) == [number] * 3
        place = own[1].bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        assert lit(answer) == [number] * 3
    page.mouse.move(0, 0)
    assert lit(answer) == []
    own[0].focus()
    assert lit(answer) == ["2"] * 3
    assert [type(part) for part in engine.asked[0].messages[0].parts][0] is Image
    assert "<|" not in page.inner_text("body")


def test_an_answer_is_copied_as_json_and_its_picture_is_saved_with_its_boxes(page):
    attach(page, ("png", png()))
    answer = ask(page, "the cup", "refer")
    answer.locator("button:has-text('JSON')").click()
    page.wait_for_selector("button:has-text('Copied')")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["text"] == "the cup" and copied["parts"][0]["boxes"][0] == pytest.approx(CUP, abs=0.002)
    with page.expect_download() as download:
        answer.locator("button:has-text('Picture')").click()
    drawn = Pillow.open(download.value.path()).convert("RGB")
    assert max(drawn.size) == 512 and download.value.suggested_filename == "0-marked.png"
    edge = drawn.getpixel((round(drawn.width * CUP[0]), round(drawn.height * (CUP[1] + CUP[3]) / 2)))
    assert edge == (0xE6, 0x19, 0x4B)


def test_words_are_heard_by_a_click_light_up_and_are_saved_as_the_server_writes_them(page, engine):
    attach(page, ("wav", wav(3.0)))
    answer = ask(page, task="transcribe")
    task = engine.asked[0].messages[0].task
    assert (task.name, task.fields) == ("transcribe", {"timestamps": True})
    words = answer.locator(".word")
    assert words.all_inner_texts() == [word.text for word in WORDS]
    words.nth(4).click()
    expect(words.nth(4)).to_have_class(re.compile("lit"))
    audio = answer.locator("audio")
    expect(audio).to_have_js_property("paused", True)  # it plays one word, and stops
    assert WORDS[4].start < audio.evaluate("audio => audio.currentTime") < WORDS[4].end + 0.3
    page.keyboard.press("Home")
    assert words.first.evaluate("one => one === document.activeElement") and page.evaluate(
        "document.activeElement.classList.contains('lit')"
    )
    wave = answer.locator(".wave").bounding_box()
    page.mouse.move(wave["x"] + wave["width"] * 0.3 / 3, wave["y"] + 20)
    expect(words.nth(1)).to_have_class(re.compile("lit"))
    with page.expect_download() as download:
        answer.locator("button:has-text('SRT')").click()
    window = WindowPrompt(engine.asked[0], 0.0, 3.0)
    shown = subtitles.segments([Reply("", "", (Words(WORDS),), 1, True)], [window])
    assert download.value.path().read_text() == subtitles.srt(shown)


def test_a_region_is_drawn_with_the_mouse_or_the_keyboard_and_asked_about(page, engine):
    attach(page, ("png", png(1)), ("png", png(2)))
    page.click(".chip[data-name=region]")
    frame = page.locator("#canvas .frame").bounding_box()
    at = [(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y) for x, y in ((0.25, 0.5), (0.75, 0.9))]
    page.mouse.move(*at[0]), page.mouse.down(), page.mouse.move(*at[1]), page.mouse.up()
    page.click("#use-region")
    ask(page)
    asked = engine.asked[0].messages[0]
    box = next(part for part in asked.parts if isinstance(part, Box))
    assert asked.task.name == "identify" and box.image == 1
    assert box.boxes[0] == pytest.approx((0.25, 0.5, 0.75, 0.9), abs=0.01)
    page.locator("#turns .mark").first.focus()
    page.keyboard.press("Enter")
    for key in ("ArrowLeft", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    ask(page, "what is it?")
    box = next(part for part in engine.asked[1].messages[-1].parts if isinstance(part, Box))
    assert box.image == 0 and box.boxes[0] == pytest.approx((0.23, 0.25, 0.73, 0.77))


def test_later_questions_tell_the_model_what_was_answered(page, engine):
    attach(page, ("png", png(1)))
    ask(page, "the cup", "refer")
    attach(page, ("wav", wav(1.0)), ("png", png(2)))
    ask(page, "fail")
    said = ask(page, "and now?").locator(".text").evaluate("one => one.textContent")
    assert said.startswith("Answer ")  # without the blank that the model began with
    first, answer, last = engine.asked[-1].messages
    assert answer.parts[0].boxes[0] == pytest.approx(CUP, abs=0.002)
    assert first.task.name == "refer" and last.text == "and now?"
    assert [type(part) for part in last.parts] == [Audio, Image, Text]  # of the failed question, only these


def test_a_picture_is_asked_about_by_voice_and_the_camera_takes_another(page, engine):
    attach(page, ("png", png()))
    page.click("#photograph")
    page.click("#shutter")
    expect(page.locator(".thumb")).to_have_count(2)
    page.click("#record")
    expect(page.locator("#level")).not_to_have_js_property("value", 0)
    page.click("#record")
    page.wait_for_selector(".heard")
    ask(page)
    assert [type(part) for part in engine.asked[0].messages[0].parts] == [Image, Image, Audio]
    wave, rate = engine.asked[0].audios[0].source
    assert len(wave) / rate > 0.1


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_are_pasted_and_dropped(page, event):
    page.evaluate(
        """([event, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
            const given = event === 'drop' ? new DragEvent(event, {dataTransfer: transfer, bubbles: true})
                                           : new ClipboardEvent(event, {clipboardData: transfer, bubbles: true});
            document.body.dispatchEvent(given);
        }""",
        [event, coded(png())],
    )
    page.wait_for_selector(".thumb")
    page.click(".remove")
    assert page.locator(".thumb").count() == 0


def test_what_is_no_picture_is_said_in_a_sentence(page):
    page.set_input_files("#files", [{"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"}])
    expect(page.locator("#hint")).to_contain_text("x.png is no picture that this browser can show")


def test_an_answer_streams_and_is_stopped_and_what_was_said_stays(page, engine):
    engine.pause = 0.05
    page.fill("#text", "a long story")
    page.keyboard.press("Enter")
    expect(page.locator(".growing")).to_contain_text("Answ")
    engine.pause = 3.0  # however slow the page is, something is left to stop
    page.click("#send")
    page.wait_for_selector(".note:has-text('Stopped.')")
    assert page.inner_text(".answer .text").startswith("Answ")
    for _ in range(600):
        if not engine.cancelled:
            page.wait_for_timeout(50)
    engine.pause = 0.0
    ask(page, "and?")
    assert engine.cancelled == 1
    assert engine.asked[-1].messages[1].text.startswith(" Answ")  # as the model said it


def test_a_spoken_question_shows_what_was_heard(page, engine, monkeypatch):
    monkeypatch.setattr(engine, "written", Written(16000))
    attach(page, ("wav", wav()))
    answer = ask(page)
    assert answer.locator(".note").inner_text() == "Heard: “the red cup. A moon”"
    assert answer.locator(".text").inner_text() == "Answer 1 to: the red cup. A moon"


def test_a_question_is_changed_and_what_followed_is_asked_anew(page, engine):
    for text in ("one", "two", "three"):
        ask(page, text)
    page.locator("#turns > li").nth(1).hover()
    page.locator(".edit").nth(1).click()
    assert page.input_value("#text") == "two"
    page.keyboard.press("Escape")
    assert page.input_value("#text") == "" and page.locator("#turns > li").count() == 3
    page.locator(".edit").nth(1).click()
    page.fill("#text", "other")
    page.keyboard.press("Enter")
    expect(page.locator("#turns > li")).to_have_count(2)
    page.wait_for_selector(".answer:has-text('Answer 2 to: other')")
    assert [m.text for m in engine.asked[-1].messages][::2] == ["one", "other"]


def test_an_answer_is_made_again_as_the_drawer_says(page, engine):
    ask(page, "hello " * 30)
    page.click("button:has-text('Again')")
    page.wait_for_selector(".note:has-text('at temperature 0 an answer repeats')")
    page.click(".note .link")
    page.keyboard.press("ArrowRight")
    page.locator("#length").fill("16")
    page.keyboard.press("Escape")
    page.click("button:has-text('Again')")
    page.wait_for_selector(".note:has-text('longest length')")
    assert (engine.options[0].do_sample, engine.options[0].max_new_tokens) == (False, 512)
    assert (engine.options[-1].temperature, engine.options[-1].max_new_tokens) == (0.1, 16)
    page.click("#open-settings")
    page.locator("#temperature").fill("0"), page.locator("#length").fill("512")
    for chosen, shown in (("dark", "dark"), ("", "light dark")):
        page.select_option("#theme", chosen)
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == shown
    page.click("#settings [data-close]")


def test_an_error_is_a_sentence_with_a_way_on(page, engine):
    answer = ask(page, "fail")
    assert answer.locator("[role=alert]").inner_text().startswith("The engine broke.")
    answer.locator("button:has-text('Try again')").click()
    expect(answer.locator("[role=alert]")).to_be_visible()
    assert len(engine.asked) == 2


def test_the_keyboard_alone_suffices_and_a_screen_reader_is_told(page, engine):
    attach(page, ("png", png()))
    page.locator(".chip[data-name=refer]").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("the cup")
    page.keyboard.press("Shift+Enter")
    assert "\n" in page.input_value("#text")
    page.keyboard.press("Enter")
    expect(page.locator("#announce")).to_have_text("Answer: the cup")
    order = []
    page.focus(".skip")
    for _ in range(25):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    wanted = ["skip", "new", "open-settings", "round mark", "phrase", "plain", "chip", "text", "attach"]
    places = [order.index(next(name for name in order if name.startswith(one))) for one in wanted]
    assert places == sorted(places)
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea, img')].filter(one => one.checkVisibility()
            && !(one.ariaLabel || one.textContent.trim() || one.alt !== undefined || one.labels?.length)).length"""
    )
    assert nameless == 0


def test_a_phone_in_the_dark_shows_all_of_it(page):
    page.set_viewport_size({"width": 340, "height": 640})
    page.emulate_media(color_scheme="dark")
    attach(page, ("png", png()), ("wav", wav(1.0)))
    ask(page, "the cup", "refer")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    page.emulate_media(color_scheme="light")
    assert page.evaluate(CONTRAST) >= 4.5
    page.set_viewport_size({"width": 1000, "height": 800})


# The least contrast (WCAG 2) of a text and what is behind it.
CONTRAST = """() => {
    const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const over = (colors) => {
        pen.clearRect(0, 0, 1, 1);
        for (const color of colors) { pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); }
        const light = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
            .map(value => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
        return .2126 * light[0] + .7152 * light[1] + .0722 * light[2];
    };
    document.getAnimations().forEach(one => one.finish());
    const ratios = [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() && !one.disabled
        && !one.matches('.tag, .unseen, .skip, option')
        && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(one => {
        const behind = [];
        for (let node = one; node; node = node.parentElement) behind.unshift(getComputedStyle(node).backgroundColor);
        const [a, b] = [over(behind), over([...behind, getComputedStyle(one).color])].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
    });
    return Math.min(...ratios);
}"""


def test_nothing_comes_from_elsewhere_and_no_script_but_the_pages_own_runs(page, engine):
    own = page.url
    assert page.requests and all(url.startswith((own, "data:", f"blob:{own}")) for url in page.requests)
    policy = page.evaluate("fetch('/').then(answer => answer.headers.get('content-security-policy'))")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", html)


def test_a_server_with_a_key_asks_for_it_once(browser, serve):
    with serve(None, LIMITS, Scripted(patient(), reply), keys=["secret"]) as served:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(page_address(served))
        page.wait_for_selector("#settings[open]")
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        page.wait_for_selector(".example")
        ask(page, "hello")
        context.close()
