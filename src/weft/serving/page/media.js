// Pictures and clips: read from files, photographed, recorded; and as parts of a message.
//
// A medium is {kind: 'picture', name, blob, url, data, width, height} or {kind: 'clip', name, blob, url, data, samples,
// seconds}: `url` is what the page shows or plays, `data` the file in base64, `samples` the sound at RATE.

const RATE = 8000; // Hz: enough to draw a waveform, and an hour is 115 MB
const VOICE = 16000; // Hz of what is recorded here
const FORMATS = ['wav', 'mp3', 'flac', 'ogg', 'opus', 'oga', 'webm', 'm4a', 'mp4', 'aac', 'mpeg', 'mpga', 'aiff', 'amr', 'caf'];

/** Reads a file. Throws an Error with a sentence where it is no picture and no recording. */
export async function read(file, name = file.name) {
  const picture = file.type ? file.type.startsWith('image/') : /\.(jpe?g|png|webp|gif|bmp|avif|tiff?|heic)$/i.test(name);
  const url = URL.createObjectURL(file);
  const common = { name, blob: file, url, data: await base64(file) };
  return picture ? { kind: 'picture', ...common, ...(await size(url, name)) } : { kind: 'clip', ...common, ...(await sound(file, name)) };
}

/** The medium as a part of a message. */
export function part({ kind, blob, name, data }) {
  if (kind === 'picture') return { type: 'image_url', image_url: { url: `data:${blob.type || 'image/*'};base64,${data}` } };
  const named = [name.split('.').pop().toLowerCase(), blob.type.split(';')[0].split('/').pop()];
  return { type: 'input_audio', input_audio: { data, format: named.find((form) => FORMATS.includes(form)) ?? 'wav' } };
}

/** Loudest samples of `count` equal stretches, 0..1. */
export function peaks(samples, count) {
  const step = samples.length / count;
  return Array.from({ length: count }, (_, i) => {
    let most = 0;
    for (let at = Math.floor(i * step); at < Math.min(samples.length, (i + 1) * step); at += 1) most = Math.max(most, Math.abs(samples[at]));
    return most;
  });
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => reject(new Error(`${blob.name ?? 'The file'} cannot be read.`));
    reader.readAsDataURL(blob);
  });
}

async function size(url, name) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error(`${name} is no picture that this browser can show. Try JPEG or PNG.`);
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}

async function sound(blob, name) {
  try {
    const decoded = await decode(blob, RATE);
    return { samples: decoded.getChannelData(0), seconds: decoded.duration };
  } catch {
    throw new Error(`${name} is no recording that this browser can play. Try WAV, MP3 or M4A.`);
  }
}

const decode = async (blob, rate) => new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());

/** A recording under way. `onlevel` is told how loud it is, 0..1, some times a second. */
export class Recording {
  static async begin(onlevel) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    return new Recording(stream, onlevel);
  }

  constructor(stream, onlevel) {
    this.stream = stream;
    this.chunks = [];
    this.begun = performance.now();
    this.recorder = new MediaRecorder(stream);
    this.recorder.ondataavailable = ({ data }) => this.chunks.push(data);
    this.recorder.start();
    this.context = new AudioContext();
    const analyser = this.context.createAnalyser();
    this.context.createMediaStreamSource(stream).connect(analyser);
    const now = new Float32Array(analyser.fftSize);
    this.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(now);
      onlevel(Math.min(1, 2 * Math.max(...now.map(Math.abs))), (performance.now() - this.begun) / 1000);
    }, 100);
  }

  /** The clip. Ends the use of the microphone. */
  async end() {
    clearInterval(this.timer);
    const stopped = new Promise((resolve) => { this.recorder.onstop = resolve; });
    this.recorder.stop();
    await stopped;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    const recorded = await decode(new Blob(this.chunks), VOICE);
    return read(new File([wav(recorded.getChannelData(0), VOICE)], 'recording.wav', { type: 'audio/wav' }));
  }
}

/** What a browser records (WebM, MP4) not every server reads, nor does it say how long it is: it becomes WAV. */
function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, 'WAVEfmt ');
  [[16, 16], [24, rate], [28, 2 * rate], [40, 2 * samples.length]].forEach(([at, value]) => view.setUint32(at, value, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, value]) => view.setUint16(at, value, true));
  text(36, 'data');
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view], { type: 'audio/wav' });
}
