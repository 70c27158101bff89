// Pictures and clips: from files, and as data URIs for requests.
import {$, make, tell} from './basics.js';

export const isMedium = (file) => /^(image|video)\//.test(file.type);
export const isClip = (medium) => medium.type.startsWith('video/');

function readDataUri(blob, name) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${name} can't be read`));
    reader.readAsDataURL(blob);
  });
}

// Only where it is asked for: the server's own resizing is the exact one.
async function scaled(blob, most) {
  const picture = await createImageBitmap(blob);
  const factor = most / Math.max(picture.width, picture.height);
  if (factor >= 1) return blob;
  const canvas = make('canvas', {width: Math.max(1, Math.round(picture.width * factor)),
                                 height: Math.max(1, Math.round(picture.height * factor))});
  canvas.getContext('2d').drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
}

// The part of a message that shows it.
export async function mediaPart(medium) {
  const most = Number($('scale').value);
  const blob = most && !isClip(medium) ? await scaled(medium.blob, most) : medium.blob;
  const url = await readDataUri(blob, medium.name);
  return isClip(medium) ? {type: 'video_url', video_url: {url}}
                        : {type: 'image_url', image_url: {url, detail: $('detail').value}};
}

export const asDataUri = (medium) => readDataUri(medium.blob, medium.name);

export function thumbnail(medium) {
  const url = URL.createObjectURL(medium.blob);
  const element = isClip(medium) ? make('video', {src: url, muted: true, title: medium.name})
                                 : make('img', {src: url, alt: medium.name, title: medium.name});
  const free = () => URL.revokeObjectURL(url);
  element.addEventListener(isClip(medium) ? 'loadeddata' : 'load', free, {once: true});
  element.addEventListener('error', free, {once: true});
  return element;
}

// ---- Camera

// Calls `take` with a picture each time that one is taken.
export async function openCamera(take) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: true});
  } catch (error) {
    return tell(`No camera: ${error.message}`);
  }
  const view = $('camera_view');
  view.srcObject = stream;
  $('camera_take').onclick = () => {
    const canvas = make('canvas', {width: view.videoWidth, height: view.videoHeight});
    canvas.getContext('2d').drawImage(view, 0, 0);
    canvas.toBlob((blob) => take({blob, type: 'image/png', name: 'camera.png'}), 'image/png');
    $('camera_dialog').close();
  };
  $('camera_close').onclick = () => $('camera_dialog').close();
  $('camera_dialog').addEventListener('close', () => {
    stream.getTracks().forEach((track) => track.stop());
    view.srcObject = null;
  }, {once: true});
  $('camera_dialog').showModal();
}
