// What can be asked for by a click, under the names that people use. Which of them a model knows is the server's to say.

const LANGUAGES = { en: 'English', zh: 'Chinese', de: 'German', es: 'Spanish', fr: 'French', it: 'Italian', ja: 'Japanese', ko: 'Korean' };

// Label, and what the question box says. In this order.
const TASKS = {
  vqa: ['Answer briefly', 'Ask about the picture'],
  caption: ['Describe', 'Just send, or say how to describe it'],
  grounded_caption: ['Describe with boxes', 'Send, or add a few words'],
  refer: ['Find one', 'What should be found? For example: the red cup'],
  detection: ['Find all', 'What should be found? For example: cups'],
  identify: ['What is this?', 'Send, or add a few words'],
  transcribe: ['Transcribe', 'Send, or add a few words'],
  translate: ['Translate', 'Send, or add a few words'],
  question: ['Ask about it', 'What do you want to know about the recording?'],
  event: ['Which sounds?', 'Send, or add a few words'],
  locate: ['When?', 'Just send, or say what to listen for'],
  scene: ['Where is this?', 'Send, or add a few words'],
  speaker: ['Who speaks?', 'Send, or add a few words'],
  emotion: ['Which mood?', 'Send, or add a few words'],
  vocal_sound: ['Voice sounds', 'Send, or add a few words'],
  entities: ['Names', 'Send, or add a few words'],
  music: ['Music', 'Send, or add a few words'],
  note: ['Which note?', 'Send, or add a few words'],
};

export const label = (name) => TASKS[name][0];
export const placeholder = (name) => TASKS[name][1];
export const language = (code) => LANGUAGES[code];

/** Names of the tasks that a model can be asked of these kinds of media ("image", "audio"); first those of the latest. */
export function possible(model, kinds, latest) {
  const known = model.weft.tasks;
  const of = (some) => (name) => known[name]?.media.some((kind) => some.has(kind));
  const able = Object.keys(TASKS).filter(of(kinds));
  return [...able.filter(of(latest)), ...able.filter((name) => !of(latest)(name))];
}

/** The choices that a task leaves open: {name: {label, values: {value: text}}}. */
export function choices(model, name) {
  const any = { '': 'As spoken', ...LANGUAGES };
  if (name === 'transcribe') {
    const times = { true: 'With word times', false: 'Text only' };
    return { language: { label: 'Language', values: any }, ...(model.weft.marks.includes('words') && { timestamps: { label: 'Times', values: times } }) };
  }
  return name === 'translate' ? { to: { label: 'Into', values: LANGUAGES }, language: { label: 'From', values: any } } : {};
}

/** A task as the server takes it: {name, ...fields}. */
export function chosen(name, values) {
  const fields = Object.entries(values).filter(([, value]) => value !== '');
  return { name, ...Object.fromEntries(fields.map(([key, value]) => [key, key === 'timestamps' ? value === 'true' : value])) };
}

/** What a question still lacks, as a sentence, or nothing. */
export function lacking(model, { text, media, task, region }) {
  const spec = task && model.weft.tasks[task.name];
  if (spec?.text && !text) return placeholder(task.name);
  if (spec?.box && !region) return 'Mark a region of the picture first';
  if (text || task || region || media.some(({ kind }) => kind === 'clip')) return '';
  return media.length ? 'Ask something about it, or choose what to do' : ' ';
}
