// A recording: its waveform, where one hears it, and its words, which light up as they are heard.

import { h, button, icon } from './dom.js';
import { peaks } from './media.js';

const BAR = 3; // pixels, the gap included
let playing = null; // one recording at a time

/** A player of the clip, and its words ({text, start, end}), if there are any: {node, words}. */
export function player(medium, timed = []) {
  const words = timed.map((word) => ({ ...word, lit: false }));
  const audio = h('audio', { src: medium.url, preload: 'metadata' });
  const wave = h('canvas', { 'aria-hidden': 'true' });
  const seek = h('input', { type: 'range', min: 0, max: medium.seconds, step: 0.01, value: 0, 'aria-label': `Position in ${medium.name}` });
  const time = h('span', { className: 'time' });
  const toggle = button('Play', 'play', () => (audio.paused ? play() : audio.pause()), { className: 'round', shown: false });
  const node = h('div', { className: 'clip' }, toggle, h('div', { className: 'wave' }, wave, seek), time, audio);
  const spoken = words.length ? wordsOf(words, (word) => play(word.start, word.end)) : null;
  let until = Infinity;
  let heights = [];

  function play(from, to = Infinity) {
    if (playing && playing !== audio) playing.pause();
    playing = audio;
    until = to;
    if (from !== undefined) audio.currentTime = from;
    audio.play().catch(() => {}); // interrupted by a pause
  }

  function draw() {
    const { width, height } = wave.getBoundingClientRect();
    if (!width) return;
    const count = Math.floor(width / BAR);
    if (heights.length !== count) heights = peaks(medium.samples, count);
    const loudest = Math.max(0.02, ...heights);
    const scale = devicePixelRatio;
    [wave.width, wave.height] = [width * scale, height * scale];
    const pen = wave.getContext('2d');
    pen.scale(scale, scale);
    const style = getComputedStyle(wave);
    const [heard, unheard, lit] = ['--accent', '--wave', '--lit'].map((name) => style.getPropertyValue(name));
    const at = (seconds) => (seconds / medium.seconds) * width;
    for (const word of words) {
      const current = word.lit || isHeard(word);
      pen.fillStyle = current ? lit : 'transparent';
      pen.fillRect(at(word.start), 0, Math.max(2, at(word.end - word.start)), height);
    }
    heights.forEach((value, i) => {
      const high = Math.max(2, (value / loudest) * (height - 8));
      pen.fillStyle = i * BAR < at(audio.currentTime) ? heard : unheard;
      pen.fillRect(i * BAR, (height - high) / 2, BAR - 1, high);
    });
  }

  const isHeard = ({ start, end }) => audio.currentTime > 0 && start <= audio.currentTime && audio.currentTime < end;

  function follow() {
    if (audio.currentTime >= until) audio.pause();
    seek.value = audio.currentTime;
    seek.setAttribute('aria-valuetext', `${audio.currentTime.toFixed(1)} of ${medium.seconds.toFixed(1)} seconds`);
    time.textContent = `${clock(audio.currentTime)} / ${clock(medium.seconds)}`;
    spoken?.mark(isHeard);
    draw();
    if (!audio.paused) requestAnimationFrame(follow);
  }

  for (const [event, name, label] of [['play', 'pause', 'Pause'], ['pause', 'play', 'Play']]) {
    audio.addEventListener(event, () => {
      toggle.replaceChildren(icon(name));
      toggle.setAttribute('aria-label', label);
      follow();
    });
  }
  audio.addEventListener('seeked', follow);
  seek.addEventListener('input', () => {
    until = Infinity;
    audio.currentTime = Number(seek.value);
  });
  seek.addEventListener('pointermove', ({ offsetX }) => light((offsetX / seek.clientWidth) * medium.seconds));
  seek.addEventListener('pointerleave', () => light(-1));
  spoken?.node.addEventListener('word', ({ detail }) => light(detail));

  function light(seconds) {
    for (const word of words) word.lit = word.start <= seconds && seconds < word.end;
    spoken?.mark((word) => word.lit || isHeard(word));
    draw();
  }

  new ResizeObserver(draw).observe(wave);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  document.addEventListener('theme', draw);
  follow();
  return { node, words: spoken?.node };
}

/** The words, each a button; arrow keys go from one to the next, so that Tab passes them in one step. */
function wordsOf(words, onclick) {
  const buttons = words.map((word, i) => h('button', { type: 'button', className: 'word', tabindex: i ? -1 : 0, title: `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s`, onclick: () => onclick(word) }, word.text));
  const node = h('div', { className: 'words', role: 'group', 'aria-label': 'Words; arrow keys move, Enter plays one' });
  buttons.forEach((one, i) => node.append(i && joined(words[i - 1].text, words[i].text) ? ' ' : '', one));
  const tell = (event) => {
    const i = buttons.indexOf(event.target);
    node.dispatchEvent(new CustomEvent('word', { detail: i < 0 || event.type === 'focusout' || event.type === 'pointerout' ? -1 : words[i].start }));
  };
  for (const event of ['pointerover', 'pointerout', 'focusin', 'focusout']) node.addEventListener(event, tell);
  node.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -words.length, End: words.length }[event.key];
    if (!step) return;
    event.preventDefault();
    const now = buttons.indexOf(event.target);
    const next = buttons[Math.max(0, Math.min(words.length - 1, now + step))];
    buttons[now].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const mark = (is) => buttons.forEach((one, i) => one.classList.toggle('lit', is(words[i])));
  return { node, mark };
}

/** Whether a space stands between two words: none does between Chinese or Japanese characters. */
const SPACELESS = /[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]/;
export const joined = (before, after) => !(SPACELESS.test(before.at(-1)) && SPACELESS.test(after[0] ?? ''));

function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, '0');
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
