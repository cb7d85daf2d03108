// The server's API: which model there is, and answers as they grow.

let key = sessionStorage.getItem('weft-key') ?? '';

export function useKey(value) {
  key = value;
  sessionStorage.setItem('weft-key', value);
}

/** What went wrong, as a sentence for a person. `status`: HTTP's, 0 where there was no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The one model: `id`, and under `weft` its modalities, tasks, marks and limits. */
export async function model() {
  const response = await call('v1/models', {});
  return (await response.json()).data[0];
}

/** The answer to a chat request: pieces `{content}`, last `{weft, finish}`. Throws `Refused`, or `AbortError` by `signal`. */
export async function* answer(request, signal) {
  const body = JSON.stringify({ ...request, stream: true });
  const response = await call('v1/chat/completions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ''; ;) {
    const { done, value } = await guarded(reader.read());
    if (done) throw new Refused(0, 'the connection ended before the answer did');
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, '');
      if (data === '[DONE]') return;
      const { error, choices } = JSON.parse(data);
      if (error) throw new Refused(500, error.message);
      if (choices.length) yield { ...choices[0].delta, finish: choices[0].finish_reason };
    }
  }
}

async function call(path, { headers, ...options }) {
  const allowed = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await guarded(fetch(path, { ...options, headers: { ...headers, ...allowed } }));
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(response.status, said.error?.message ?? `the server answered with status ${response.status}`);
}

async function guarded(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, 'the server cannot be reached; is it still running?');
  }
}
