// The page: one conversation with the model that the server has.

import { $, h, announce } from './dom.js';
import * as api from './api.js';
import { read } from './media.js';
import { messages, pictures, clips } from './conversation.js';
import { question, answerPlace, plain, sentence } from './transcript.js';
import { Composer } from './composer.js';
import { beginSettings, aboutModel, openSettings, decoding } from './settings.js';
import { examples } from './examples.js';

let model = null;
let composer = null;
let underWay = null; // the AbortController of the answer that is being made
let edited = null; // the exchange that is being changed
const exchanges = []; // {question, answer, node, place}

async function begin() {
  try {
    model = await api.model();
  } catch (error) {
    $('senses').textContent = error.status === 401 ? 'This server asks for a key: enter it in the settings.' : sentence(error.message);
    $('senses').classList.add('wrong');
    if (error.status === 401) openSettings('key');
    return;
  }
  $('senses').classList.remove('wrong');
  $('settings').close();
  aboutModel(model);
  $('model').textContent = model.id;
  document.title = `${model.id} · weft`;
  composer ??= new Composer(model, { before: () => exchanges.map(({ question: { media } }) => media), onsend: ask, onstop: () => underWay?.abort() });
  $('composer').hidden = false;
  $('senses').textContent = { 'image audio': 'Drop a picture or a recording here, paste one, or begin with an example.', image: 'Drop a picture here, paste one, or begin with an example.', audio: 'Drop a recording here, or begin with an example.' }[model.weft.modalities.filter((one) => one !== 'text').join(' ')] ?? 'Write a question below.';
  $('examples').replaceChildren(...examples(model, async ({ files, ...asked }) => ask({ ...asked, media: await Promise.all(files.map((file) => read(file))), region: null })));
  composer.update();
  $('text').focus();
}

/** Asks a question; in the place of the edited one and all after it, if one is edited. */
function ask(asked) {
  if (underWay) return;
  if (edited) truncate(exchanges.indexOf(edited));
  const exchange = { question: asked, answer: null };
  exchanges.push(exchange);
  const shown = { pictures: pictures(exchanges), clips: clips(exchanges) };
  exchange.place = answerPlace({ again: () => again(exchange), region: composer.about, settings: () => openSettings() }, shown);
  exchange.node = h('li', {}, question(asked, { edit: () => edit(exchange), region: composer.about }), exchange.place.node);
  $('turns').append(exchange.node);
  $('empty').hidden = true;
  respond(exchange);
}

async function respond(exchange) {
  const before = exchange.answer;
  const answer = exchange.answer = { text: '', state: 'waiting' };
  const own = underWay = new AbortController();
  composer.busy = true;
  composer.update();
  lastOnly();
  exchange.place.show(answer);
  scroll(exchange.place.node);
  announce('Answering');
  try {
    const request = { model: model.id, messages: messages(exchanges), ...decoding() };
    for await (const { content, weft, finish } of api.answer(request, own.signal)) {
      if (content) {
        answer.text += content;
        answer.state = 'growing';
        exchange.place.grow(answer);
        if (nearEnd()) scroll(exchange.place.node);
      }
      if (weft) Object.assign(answer, { weft, cut: finish === 'length' });
    }
    answer.state = 'done';
    answer.repeated = before?.state === 'done' && before.weft?.raw === answer.weft?.raw && decoding().temperature === 0;
    announce(`Answer: ${plain(answer) || 'nothing'}`);
  } catch (error) {
    answer.state = error.name === 'AbortError' ? 'stopped' : 'failed';
    answer.error = error;
    announce(answer.state === 'stopped' ? 'Stopped' : sentence(error.message));
  }
  if (underWay !== own) return; // a new conversation has begun
  underWay = null;
  composer.busy = false;
  composer.update();
  exchange.place.show(answer, true);
  scroll(exchange.place.node);
}

/** Answers once more; what came after is taken away. */
function again(exchange) {
  if (underWay) return;
  truncate(exchanges.indexOf(exchange) + 1);
  respond(exchange);
}

function edit(exchange) {
  if (underWay) return;
  edited = exchange;
  $('editing').hidden = false;
  exchange.node.classList.add('edited');
  composer.take(exchange.question);
}

function endEdit() {
  edited?.node.classList.remove('edited');
  edited = null;
  $('editing').hidden = true;
}

function truncate(length) {
  exchanges.splice(length).forEach(({ node }) => node.remove());
  endEdit();
}

/** Only the last answer can be made again. */
function lastOnly() {
  exchanges.slice(0, -1).forEach(({ answer, place }) => place.actionsOf(answer, false));
}

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 160;

function scroll(node) {
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  node.scrollIntoView({ block: 'end', behavior: still ? 'auto' : 'smooth' });
}

$('cancel-edit').onclick = () => {
  endEdit();
  composer.clear();
  composer.update();
  $('text').focus();
};
$('new').onclick = () => {
  underWay?.abort();
  underWay = null;
  truncate(0);
  $('empty').hidden = false;
  if (!composer) return;
  composer.busy = false;
  composer.clear();
  composer.update();
  $('text').focus();
};
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  if (underWay) underWay.abort();
  else if (edited) $('cancel-edit').click();
});

// What scrolls into view stays clear of the composer, however high that is.
new ResizeObserver(([{ target }]) => document.documentElement.style.setProperty('scroll-padding-bottom', `${target.offsetHeight + 8}px`)).observe($('composer'));

$('composer').hidden = true;
beginSettings(begin);
begin();
