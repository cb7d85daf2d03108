// A photo from the camera, as a file; where the page may not use it, `otherwise` is called (a phone's own camera).

import { $ } from './dom.js';

export async function photograph(onphoto, otherwise) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1920 } } });
  } catch {
    otherwise();
    return;
  }
  const [dialog, video] = [$('camera-view'), $('video')];
  video.srcObject = stream;
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  $('shutter').disabled = true; // until there is a picture to take
  video.onloadeddata = () => { $('shutter').disabled = false; };
  dialog.showModal();
  video.play().catch(() => {}); // closed before it began
  $('shutter').onclick = () => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => onphoto(new File([blob], 'photo.jpg', { type: blob.type })), 'image/jpeg', 0.92);
  };
}
