// What was asked and answered, and the messages that tell the server of it.
//
// An exchange is {question: {text, media, task, region}, answer: {text, weft, state, error}}. `task` is {name, ...fields},
// `region` is {medium, box: [left, top, right, bottom] in fractions}; `state`: waiting, growing, done, stopped, failed.

import { part } from './media.js';

export const pictures = (exchanges) => shown(exchanges, 'picture');
export const clips = (exchanges) => shown(exchanges, 'clip');

function shown(exchanges, kind) {
  return exchanges.flatMap(({ question }) => question.media).filter((medium) => medium.kind === kind);
}

/** Of all exchanges, the last of which waits for its answer. A question that got none is left out, but its media stay. */
export function messages(exchanges) {
  const out = [];
  let carried = [];
  exchanges.forEach(({ question, answer }, i) => {
    const last = i === exchanges.length - 1;
    const media = [...carried, ...question.media];
    if (!last && !answer.text && !answer.weft?.parts.length) {
      carried = media;
      return;
    }
    carried = [];
    out.push({ role: 'user', content: [...media.map(part), ...asked(question, pictures(exchanges))] });
    if (!last) out.push({ role: 'assistant', content: answer.text, weft: answer.weft });
  });
  return out;
}

function asked({ text, task, region }, all) {
  const parts = [];
  if (task) {
    const { name, ...fields } = task;
    parts.push({ type: 'task', task: name, ...fields });
  }
  if (text) parts.push({ type: 'text', text });
  if (region) parts.push({ type: 'box', boxes: [region.box], image: all.indexOf(region.medium) });
  return parts;
}

/** Pieces of an answer as they are read: text, boxes under a name and a number, words. Without what is no box nor time. */
export function pieces(answer) {
  if (!answer.weft) return answer.text ? [{ type: 'text', text: answer.text }] : [];
  const { parts, malformed } = answer.weft;
  return parts.map((one, i) => {
    if (one.type === 'text') return { ...one, text: malformed.reduce((text, odd) => text.replace(odd, ''), one.text) };
    if (one.type === 'box') return { ...one, number: i, label: one.label || 'here' };
    return one;
  });
}
