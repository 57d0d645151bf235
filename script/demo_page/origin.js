// Where a point of the picture comes from, drawn over the picture of the person.

export function darken(canvas) {
  if (!canvas.classList.replace("lit", "dark")) return; // nothing to clear, 60 times a second
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Heat for a `map` of attention (rows of 0 to 255), or a ring at the `place` of a flow field. */
export function light(canvas, {map, place}, frame) {
  const context = canvas.getContext("2d");
  canvas.className = "lit";
  [canvas.height, canvas.width] = frame.map(side => 2 * side);
  if (place) ring(context, place.map(v => 2 * v));
  else heat(context, map);
}

function ring(context, [y, x]) {
  for (const [radius, colour] of [[11, "#000"], [8, "#ffe04a"]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.lineWidth = 4;
    context.strokeStyle = colour;
    context.stroke();
  }
}

function heat(context, map) {
  const cells = new ImageData(map[0].length, map.length);
  map.flat().forEach((value, i) => {
    cells.data.set([255, 70 + 0.65 * value, 10, 0.85 * value], 4 * i);
  });
  const small = new OffscreenCanvas(cells.width, cells.height);
  small.getContext("2d").putImageData(cells, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
}
