// An exchange on the page: the question as it was asked; the answer as it grows, then with its boxes and words.

import { h, button, icon, announce, save } from './dom.js';
import { picture, annotated, color, crop } from './picture.js';
import { player, joined } from './clip.js';
import { pieces } from './conversation.js';
import { label, language } from './tasks.js';
import { srt } from './subtitles.js';

/** The question; `does` is {edit, region}. */
export function question({ text, media, task, region }, does) {
  const shown = media.map((medium) => (medium.kind === 'picture' ? picture(medium, region?.medium === medium ? [{ boxes: [region.box] }] : [], does.region) : player(medium).node));
  const asked = task && h('span', { className: 'asked' }, [label(task.name), language(task.language), language(task.to) && `into ${language(task.to)}`].filter(Boolean).join(', '));
  const about = region && h('span', { className: 'about' }, crop(region), 'about this region');
  const edit = button('Change the question', 'edit', does.edit, { className: 'round edit', shown: false });
  return h('div', { className: 'question' }, h('h2', { className: 'unseen' }, 'You asked'), shown.length ? h('div', { className: 'media' }, shown) : null, asked || about || text ? h('div', { className: 'bubble' }, asked, about, text ? h('p', {}, text) : null) : null, edit);
}

/** The answer's place. `show(answer)` shows it as it is now; `does` is {again, region, settings}, `shown` the media so far. */
export function answerPlace(does, shown) {
  const body = h('div', { className: 'body' });
  const actions = h('div', { className: 'actions' });
  const node = h('div', { className: 'answer' }, h('h2', { className: 'unseen' }, 'Answer'), body, actions);
  linked(node);
  const show = (answer, last) => {
    node.setAttribute('aria-busy', ['waiting', 'growing'].includes(answer.state));
    body.replaceChildren(...whole(answer, does, shown));
    actions.replaceChildren(...offered(answer, does, shown, last));
  };
  const grow = (answer) => {
    const growing = body.querySelector('.growing');
    if (growing) growing.textContent = answer.text;
    else show(answer);
  };
  const actionsOf = (answer, last) => actions.replaceChildren(...offered(answer, does, shown, last));
  return { node, show, grow, actionsOf };
}

function whole(answer, does, shown) {
  if (answer.state === 'waiting') return [h('p', { className: 'waiting' }, h('span', { className: 'unseen' }, 'Answering'), h('i'), h('i'), h('i'))];
  if (answer.state === 'growing') return [h('p', { className: 'text growing' }, answer.text)];
  const out = [...figures(answer, does, shown), ...flow(answer, shown)];
  if (out.length && answer.weft?.heard) out.unshift(note(`Heard: “${answer.weft.heard}”`));
  if (answer.state === 'failed') out.push(failure(answer.error, does));
  else if (answer.state === 'stopped') out.push(note('Stopped.'));
  else if (!out.length) out.push(note('The model had nothing to say.'));
  if (answer.cut) out.push(note('The answer reached the longest length; ', ['Settings', does.settings], ' allows more.'));
  if (answer.repeated) out.push(note('The same as before: at temperature 0 an answer repeats. ', ['Settings', does.settings], ' has it vary.'));
  if (answer.weft?.malformed.length) out.push(note('A part of the answer was meant as a box or a time and cannot be read as one.'));
  return out;
}

function note(before, link, after = '') {
  return h('p', { className: 'note' }, before, link ? h('button', { type: 'button', className: 'link', onclick: link[1] }, link[0]) : null, after);
}

function failure(error, does) {
  const key = error.status === 401 ? button('Enter the key', 'settings', does.settings) : null;
  return h('div', { className: 'failure', role: 'alert' }, icon('warning'), h('p', {}, sentence(error.message)), key, button('Try again', 'again', does.again));
}

export function sentence(text) {
  const upper = text[0].toUpperCase() + text.slice(1);
  return /[.?!]$/.test(upper) ? upper : `${upper}.`;
}

const boxes = (answer) => pieces(answer).filter(({ type, boxes }) => type === 'box' && boxes.length);

/** [medium, its regions] of every picture that the answer points at. */
function marked(answer, shown) {
  const found = new Map();
  for (const box of boxes(answer)) {
    const medium = shown.pictures[box.image ?? 0];
    if (medium) found.set(medium, [...(found.get(medium) ?? []), box]);
  }
  return [...found];
}

function figures(answer, does, shown) {
  return marked(answer, shown).map(([medium, regions]) => picture(medium, regions, does.region));
}

/** Text with phrases in it, in one paragraph; words under the player of their clip. */
function flow(answer, shown) {
  const out = [];
  let text = null;
  for (const piece of pieces(answer)) {
    if (piece.type === 'words') {
      text = null;
      const { node, words } = player(shown.clips[piece.audio ?? 0], piece.words);
      out.push(node, words ?? note('No words were heard.'));
      continue;
    }
    if (!text) out.push(text = h('p', { className: 'text' }));
    if (piece.type === 'text') text.append(text.textContent ? piece.text : piece.text.trimStart());
    else text.append(text.textContent && !/\s$/.test(text.textContent) ? ' ' : '', phrase(piece));
  }
  return out.filter((node) => node.textContent.trim() || node.querySelector('canvas'));
}

function phrase({ label: name, number, boxes: there }) {
  if (!there.length) return h('span', { className: 'phrase none' }, `${name}: not there`);
  const count = there.length > 1 ? h('small', {}, ` ${there.length}`) : null;
  return h('button', { type: 'button', className: 'phrase', 'data-number': number, color: color(number), 'aria-label': `${name}, ${there.length > 1 ? `${there.length} boxes` : 'a box'} on the picture` }, name, count);
}

/** A phrase and its boxes light up together, whichever of them is pointed at. */
function linked(node) {
  const light = (event) => {
    const { number } = event.target.closest?.('[data-number]')?.dataset ?? {};
    const on = number !== undefined && !['pointerout', 'focusout'].includes(event.type);
    node.classList.toggle('pointing', on);
    for (const one of node.querySelectorAll('[data-number]')) one.classList.toggle('lit', on && one.dataset.number === number);
  };
  for (const event of ['pointerover', 'pointerout', 'focusin', 'focusout']) node.addEventListener(event, light);
}

function offered(answer, does, shown, last) {
  if (!['done', 'stopped'].includes(answer.state)) return [];
  const parts = answer.weft?.parts ?? [];
  const words = parts.filter(({ type }) => type === 'words').flatMap((part) => part.words);
  const json = () => JSON.stringify({ text: answer.text, parts }, null, 2);
  return [
    button('Copy', 'copy', (event) => copied(event, plain(answer))),
    answer.weft && button('JSON', 'code', (event) => copied(event, json()), { title: 'Copy as JSON: boxes in fractions, times in seconds' }),
    ...marked(answer, shown).map(([medium, regions]) => button('Picture', 'download', async () => save(await annotated(medium, regions), `${stem(medium)}-marked.png`), { title: 'Download the picture with its boxes' })),
    words.length ? button('SRT', 'download', () => save(new Blob([srt(words)], { type: 'application/x-subrip' }), `${stem(shown.clips[parts.find(({ type }) => type === 'words').audio ?? 0])}.srt`), { title: 'Download as subtitles' }) : null,
    last && button('Again', 'again', does.again, { title: 'Answer again' }),
  ].filter(Boolean);
}

const stem = ({ name }) => name.replace(/\.[^.]*$/, '');

export function plain(answer) {
  return pieces(answer).reduce((text, piece) => {
    if (piece.type === 'text') return text + piece.text;
    const next = piece.type === 'box' ? piece.label : piece.words.reduce((line, { text: word }) => line + (line && joined(line, word) ? ' ' : '') + word, '');
    return text + (text && !/\s$/.test(text) ? ' ' : '') + next;
  }, '').trim();
}

async function copied({ currentTarget }, text) {
  await navigator.clipboard.writeText(text);
  announce('Copied');
  const shown = currentTarget.querySelector('span');
  const before = shown.textContent;
  shown.textContent = 'Copied';
  setTimeout(() => { shown.textContent = before; }, 1500);
}
