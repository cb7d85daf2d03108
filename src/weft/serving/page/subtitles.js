// Words with times as SRT. A cue ends at a pause, at the end of a sentence, or when it has grown too long to be read.

import { joined } from './clip.js';

const [PAUSE, LONGEST, LETTERS] = [0.8, 7, 84]; // seconds, seconds, two lines of 42 letters

export function srt(words) {
  const cues = [];
  for (const word of words) {
    const cue = cues.at(-1);
    const text = cue && cue.text + (joined(cue.text, word.text) ? ' ' : '') + word.text;
    if (!cue || word.start - cue.end > PAUSE || /[.?!。？！…]$/.test(cue.text) || word.end - cue.start > LONGEST || text.length > LETTERS) cues.push({ ...word });
    else Object.assign(cue, { text, end: word.end });
  }
  return cues.map(({ start, end, text }, i) => `${i + 1}\n${stamp(start)} --> ${stamp(end)}\n${text}\n\n`).join('');
}

function stamp(seconds) {
  const thousandths = Math.round(1000 * seconds);
  const [two, three] = [2, 3].map((width) => (value) => String(value).padStart(width, '0'));
  const whole = Math.floor(thousandths / 1000);
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)},${three(thousandths % 1000)}`;
}
