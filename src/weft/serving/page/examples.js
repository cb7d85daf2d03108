// What the empty page proposes: questions about a picture and a recording that come with it.

import { h } from './dom.js';

const EXAMPLES = [
  { media: ['example.png'], task: 'refer', text: 'the red cup', title: 'Find one thing', detail: '“the red cup”' },
  { media: ['example.png'], task: 'grounded_caption', title: 'Describe with boxes', detail: 'each phrase on the picture' },
  { media: ['example.flac'], task: 'transcribe', fields: { timestamps: true }, title: 'Transcribe', detail: 'a recording, word by word' },
  { media: ['example.png'], text: 'What is in this picture?', title: 'Ask about a picture', detail: '“What is in this picture?”' },
  { media: ['example.flac'], text: 'What is said here?', title: 'Ask about a recording', detail: '“What is said here?”' },
];
const KINDS = { png: 'image', flac: 'audio' };
const MOST = 4;

/** Those that the model can be asked, as list items; `onchoose` takes {files, task, text}. */
export function examples(model, onchoose) {
  const able = EXAMPLES.filter(({ media, task, fields }) => media.every((name) => model.weft.modalities.includes(KINDS[name.split('.').pop()]))
    && (!task || model.weft.tasks[task]) && (!fields?.timestamps || model.weft.marks.includes('words')));
  return able.slice(0, MOST).map((example) => h('li', {}, h('button', { type: 'button', className: 'example', onclick: () => choose(example, onchoose) },
    example.media[0].endsWith('png') ? h('img', { src: example.media[0], alt: '' }) : h('span', { className: 'sound', 'aria-hidden': 'true' }, [5, 9, 14, 8, 12, 18, 10, 6, 13, 7].map(bar)),
    h('span', {}, h('strong', {}, example.title), h('small', {}, example.detail)))));
}

function bar(height) {
  const node = h('i');
  node.style.height = `${height * 2}px`;
  return node;
}

async function choose({ media, text = '', task, fields }, onchoose) {
  const files = await Promise.all(media.map(async (name) => new File([await (await fetch(name)).blob()], name, { type: name.endsWith('png') ? 'image/png' : 'audio/flac' })));
  onchoose({ files, text, task: task ? { name: task, ...fields } : null });
}
