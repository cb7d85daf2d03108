// The next question: what is attached, what is to be done, the words; and how these come in.

import { $, h, button, icon } from './dom.js';
import { read, Recording } from './media.js';
import { view, crop } from './picture.js';
import { photograph } from './camera.js';
import { possible, label, placeholder, choices, chosen, lacking } from './tasks.js';

const FEW = 5; // tasks that are shown before more is asked for
const KINDS = { picture: 'image', clip: 'audio' };
const kinds = (media) => new Set(media.map(({ kind }) => KINDS[kind]));

/** `model`: what the server says of it. `before()` gives the media of each question so far; `onsend` takes a question. */
export class Composer {
  constructor(model, { before, onsend, onstop }) {
    Object.assign(this, { model, before, onsend, onstop, busy: false, recording: null, more: false });
    this.clear();
    const hears = model.weft.modalities.includes('audio');
    const sees = model.weft.modalities.includes('image');
    $('photograph').hidden = !sees;
    $('record').hidden = !hears;
    $('attach').hidden = !sees && !hears;
    $('files').accept = [sees && 'image/*', hears && 'audio/*,video/mp4,video/webm'].filter(Boolean).join(',');
    $('attach').onclick = () => $('files').click();
    for (const input of [$('files'), $('capture')]) {
      input.onchange = async () => {
        await this.add([...input.files]);
        input.value = '';
      };
    }
    $('photograph').onclick = () => photograph((file) => this.add([file]), () => $('capture').click());
    $('record').onclick = () => this.record();
    $('text').oninput = () => this.update();
    $('text').onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    };
    $('composer').onsubmit = (event) => {
      event.preventDefault();
      if (this.busy) this.onstop();
      else this.send();
    };
    this.dropped();
  }

  clear() {
    this.media = [];
    this.region = null;
    this.choose(null);
    $('text').value = '';
  }

  /** Takes a question up again, to be changed. */
  take({ text, media, task, region }) {
    this.media = [...media];
    this.region = region;
    const { name, ...fields } = task ?? {};
    this.choose(name ?? null);
    Object.entries(fields).forEach(([key, value]) => { this.values[key] = String(value); });
    $('text').value = text;
    this.update();
    $('text').focus();
  }

  choose(name) {
    this.task = name;
    this.values = Object.fromEntries(Object.entries(name ? choices(this.model, name) : {}).map(([key, { values }]) => [key, key === 'to' ? 'en' : Object.keys(values).find((value) => value === '' || value === 'true')]));
  }

  get question() {
    const task = this.task && chosen(this.task, this.values);
    return { text: $('text').value.trim(), media: this.media, task, region: this.region };
  }

  send() {
    const { question } = this;
    const missing = lacking(this.model, question);
    if (missing || this.busy || this.recording) return this.say(missing, Boolean(missing.trim()));
    this.clear();
    this.onsend(question);
  }

  async add(files) {
    for (const file of files) {
      try {
        const medium = await read(file);
        if (!this.model.weft.modalities.includes(KINDS[medium.kind])) throw new Error(`This model takes no ${medium.kind === 'clip' ? 'sound' : 'pictures'}.`);
        this.media.push(medium);
        this.update();
      } catch (error) {
        this.say(error.message, true);
        return;
      }
    }
    $('text').focus();
  }

  async record() {
    if (this.recording) {
      const clip = this.recording.end();
      this.recording = null;
      this.media.push(await clip);
    } else {
      try {
        this.recording = await Recording.begin((level, seconds) => {
          $('level').value = level;
          this.say(`Recording, ${seconds.toFixed(0)} s`);
        });
      } catch {
        this.say('The microphone cannot be used: allow it for this page, or attach a recording.', true);
        return;
      }
    }
    $('level').hidden = !this.recording;
    $('record').setAttribute('aria-pressed', Boolean(this.recording));
    $('record').setAttribute('aria-label', this.recording ? 'Stop recording' : 'Record');
    $('record').replaceChildren(icon(this.recording ? 'stop' : 'microphone'));
    this.update();
  }

  /** Asks about a region of a picture that was shown, or is attached. */
  about = (region) => {
    this.region = region;
    const needed = this.model.weft.tasks.identify;
    if (!this.task && !$('text').value.trim() && needed) this.choose('identify');
    this.update();
    $('text').focus();
  };

  remove(medium) {
    this.media = this.media.filter((one) => one !== medium);
    if (this.region?.medium === medium) this.region = null;
    this.update();
    $('text').focus();
  }

  say(text, wrong = false) {
    $('hint').textContent = text;
    $('hint').classList.toggle('wrong', wrong);
  }

  /** Shows what the next question is by now. */
  update() {
    const turns = [...this.before(), this.media];
    const seen = turns.flat();
    const able = possible(this.model, kinds(seen), kinds(turns.findLast(({ length }) => length) ?? []));
    if (this.task && !able.includes(this.task)) this.choose(null);
    $('attached').replaceChildren(...this.media.map((medium, i) => this.attached(medium, i)), ...(this.region ? [this.marked()] : []));
    this.offer(able, seen.filter(({ kind }) => kind === 'picture').at(-1));
    $('text').placeholder = this.task ? placeholder(this.task) : seen.length ? 'Ask about it' : 'Ask anything';
    $('text').style.height = 'auto';
    $('text').style.height = `${$('text').scrollHeight}px`;
    if (!this.recording) this.say('');
    $('send').disabled = !this.busy && (Boolean(lacking(this.model, this.question)) || Boolean(this.recording));
    $('send').setAttribute('aria-label', this.busy ? 'Stop' : 'Send');
    $('send').replaceChildren(icon(this.busy ? 'stop' : 'send'));
  }

  attached(medium, i) {
    const remove = button(`Remove ${medium.name}`, 'close', () => this.remove(medium), { className: 'round remove', shown: false });
    if (medium.kind === 'clip') return h('li', { className: 'thumb heard' }, icon('microphone'), h('span', {}, medium.name), h('small', {}, `${medium.seconds.toFixed(1)} s`), remove);
    return h('li', { className: 'thumb' }, h('img', { src: medium.url, alt: `Picture ${i + 1}: ${medium.name}` }), remove);
  }

  marked() {
    const remove = button('Remove the region', 'close', () => { this.region = null; this.update(); }, { className: 'round remove', shown: false });
    return h('li', { className: 'thumb' }, crop(this.region), h('span', { className: 'unseen' }, 'Region of the picture'), remove);
  }

  /** The tasks, and the choices that the chosen one leaves. */
  offer(able, picture) {
    const focused = $('tasks').contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const region = picture && this.model.weft.marks.includes('box') ? [button('Mark a region', 'region', () => view(picture, this.about), { className: 'chip', 'data-name': 'region' })] : [];
    const few = able.filter((name, i) => this.more || able.length <= FEW + 1 || i < FEW || name === this.task);
    const rest = few.length === able.length ? [] : [h('button', { type: 'button', className: 'chip', 'data-name': few.at(-1), onclick: () => { this.more = true; this.update(); } }, 'More …')];
    const chips = few.map((name) => h('button', { type: 'button', className: 'chip', 'aria-pressed': name === this.task, 'data-name': name, onclick: () => this.pick(name, picture) }, label(name)));
    const selects = this.task ? Object.entries(choices(this.model, this.task)).map(([field, choice]) => this.choice(field, choice)) : [];
    $('tasks').replaceChildren(...region, ...chips.flatMap((chip, i) => (few[i] === this.task ? [chip, ...selects] : [chip])), ...rest);
    if (focused) [...$('tasks').children].find(({ dataset }) => dataset.name === focused)?.focus();
  }

  pick(name, picture) {
    this.choose(name === this.task ? null : name);
    this.update();
    if (this.task && this.model.weft.tasks[name].box && !this.region) view(picture, this.about);
    else $('text').focus();
  }

  choice(field, { label: name, values }) {
    const options = Object.entries(values).map(([value, text]) => h('option', { value, selected: value === this.values[field] }, text));
    return h('select', { className: 'chip', 'aria-label': name, onchange: ({ target }) => { this.values[field] = target.value; } }, options);
  }

  /** Files dropped on the page or pasted into it. */
  dropped() {
    const files = (transfer) => [...(transfer?.files ?? [])];
    document.addEventListener('dragover', (event) => {
      if (![...event.dataTransfer.types].includes('Files')) return;
      event.preventDefault();
      $('drop').hidden = false;
    });
    document.addEventListener('dragleave', (event) => { $('drop').hidden = event.relatedTarget === null; });
    document.addEventListener('drop', (event) => {
      $('drop').hidden = true;
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.add(files(event.dataTransfer));
    });
    document.addEventListener('paste', (event) => {
      const pasted = files(event.clipboardData);
      if (!pasted.length) return;
      event.preventDefault();
      this.add(pasted);
    });
  }
}
