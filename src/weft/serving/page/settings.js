// The drawer: how answers are made, and how the page looks. What is set is kept for the next visit, but for the key.

import { $, h } from './dom.js';
import { useKey } from './api.js';

const kept = { temperature: '0', length: '512', theme: '', ...JSON.parse(localStorage.getItem('weft-settings') ?? '{}') };

/** As a request takes them. */
export const decoding = () => ({ temperature: Number(kept.temperature), max_tokens: Number($('length').value) });

export function openSettings(field = 'temperature') {
  $('settings').showModal();
  $(field).focus();
}

/** `onkey` is called when a key was entered. */
export function beginSettings(onkey) {
  for (const name of ['temperature', 'length', 'theme']) {
    $(name).value = kept[name];
    $(name).oninput = () => {
      kept[name] = $(name).value;
      localStorage.setItem('weft-settings', JSON.stringify(kept));
      shown();
    };
  }
  $('key').onchange = () => {
    useKey($('key').value.trim());
    onkey();
  };
  $('open-settings').onclick = () => openSettings();
  shown();
}

/** What the server says of its model: the longest answer, and what the drawer tells of it. */
export function aboutModel({ id, weft }) {
  $('length').max = weft.limits.tokens;
  $('length').value = kept.length;
  const facts = { Model: id, 'Takes': weft.modalities.join(', '), 'Pictures and clips': `at most ${weft.limits.media} in a conversation` };
  $('about').replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
  shown();
}

function shown() {
  $('temperature-value').textContent = Number($('temperature').value).toFixed(1);
  $('length-value').textContent = `${$('length').value} tokens`;
  if (kept.theme) document.documentElement.dataset.theme = kept.theme;
  else delete document.documentElement.dataset.theme;
  document.dispatchEvent(new Event('theme'));
}
