// Files that the page gives away.

import {MISSING} from "./skeleton.js";

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A pose in OpenPose's layout, our "frame" beside it: script.transfer --pose reads it. */
export function poseFile(keypoints, frame) {
  const triples = keypoints.flatMap(([y, x]) => y === MISSING ? [0, 0, 0] : [x, y, 1]);
  const pose = {frame, people: [{pose_keypoints_2d: triples}]};
  return new Blob([JSON.stringify(pose)], {type: "application/json"});
}

/** PNG of a picture on the page and a generated one, at least 256 pixels high. */
export async function sideBySide(image, blob, frame) {
  const [height, width] = frame.map(side => side * Math.ceil(256 / frame[0]));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width + 8, height];
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  await image.decode();
  context.drawImage(image, 0, 0, width, height);
  context.drawImage(await createImageBitmap(blob), width + 8, 0, width, height);
  return new Promise(done => canvas.toBlob(done, "image/png"));
}
