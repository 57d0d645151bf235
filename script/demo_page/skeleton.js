// A skeleton and how it moves: plain arithmetic on points, nothing of the page.
//
// A figure is {points: [[x, y], ...], shown: [true, ...]}, in pixels of the annotation frame. A
// joint that is not shown keeps its place, so that it can come back and moves with its parent.

export const MISSING = -1;

/** Parent and children of every joint; limbs are pairs (parent, child) of a tree. */
export function family(limbs, count) {
  const parents = Array(count).fill(-1);
  const children = Array.from({length: count}, () => []);
  for (const [from, to] of limbs) {
    parents[to] = from;
    children[from].push(to);
  }
  return {parents, children, root: parents.indexOf(-1)};
}

export function descendants(tree, joint) {
  return tree.children[joint].flatMap(child => [child, ...descendants(tree, child)]);
}

export const copy = figure => ({points: figure.points.map(p => [...p]), shown: [...figure.shown]});

/** Our (y, x) keypoints, -1 = missing, as a figure; missing joints are put where `model` has them
 * beside their parent. */
export function fromKeypoints(keypoints, tree, model) {
  const shown = keypoints.map(([y, x]) => y !== MISSING && x !== MISSING);
  const points = keypoints.map(([y, x]) => [x, y]);
  if (model) place(points, shown, tree, model);
  return {points, shown};
}

function place(points, shown, tree, model) {
  const scale = size(points, shown, tree) / size(model.points, shown, tree) || 1;
  const visit = (joint, known) => {
    const parent = tree.parents[joint];
    if (!shown[joint]) {
      const anchor = parent >= 0 && known ? parent : shown.indexOf(true);
      if (anchor >= 0) {
        points[joint] = points[anchor].map(
          (v, k) => v + scale * (model.points[joint][k] - model.points[anchor][k]));
      } else {
        points[joint] = [...model.points[joint]];
      }
    }
    for (const child of tree.children[joint]) visit(child, true);
  };
  visit(tree.root, false);
}

/** The mean length of the limbs whose two joints are shown. */
function size(points, shown, tree) {
  let sum = 0, count = 0;
  tree.parents.forEach((parent, joint) => {
    if (parent < 0 || !shown[joint] || !shown[parent]) return;
    sum += distance(points[parent], points[joint]);
    count += 1;
  });
  return count ? sum / count : 0;
}

/** The (y, x) keypoints of a figure, in tenths of pixels; -1 is kept for joints that are missing. */
export function toKeypoints(figure) {
  const number = v => {
    const rounded = Math.round(v * 10) / 10;
    return rounded === MISSING ? MISSING - 0.1 : rounded;
  };
  return figure.points.map(
    ([x, y], i) => figure.shown[i] ? [number(y), number(x)] : [MISSING, MISSING]);
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

// joints that pull the two limbs above them along
const ENDS = new Set([4, 7, 10, 13]);
// limbs whose children keep their direction: the trunk does not swing the arms and legs
const TRUNK = new Set([2, 5, 8, 11]);

/** `figure` with `joint` taken to [x, y]; with `rigid` every limb keeps its length. */
export function drag(figure, tree, joint, to, rigid) {
  const moved = copy(figure);
  const parent = tree.parents[joint];
  if (joint === tree.root) {
    if (rigid) return shift(moved, to[0] - figure.points[joint][0], to[1] - figure.points[joint][1]);
    moved.points[joint] = [...to];
    return moved;
  }
  if (!rigid) {
    carry(moved, figure, tree, joint, to, 0);
    return moved;
  }
  const above = tree.parents[parent];
  if (ENDS.has(joint) && above >= 0) return reach(moved, figure, tree, joint, parent, above, to);
  turn(moved, figure, tree, joint, parent, to, !TRUNK.has(joint));
  return moved;
}

/** Put a joint somewhere and its descendants after it, turned by `angle` about it. */
function carry(moved, figure, tree, joint, to, angle) {
  const from = figure.points[joint];
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  moved.points[joint] = [...to];
  for (const child of descendants(tree, joint)) {
    const [dx, dy] = [figure.points[child][0] - from[0], figure.points[child][1] - from[1]];
    moved.points[child] = [to[0] + c * dx - s * dy, to[1] + s * dx + c * dy];
  }
}

/** Turn a limb about its parent towards a point. */
function turn(moved, figure, tree, joint, parent, towards, swing) {
  const pivot = moved.points[parent];
  const before = Math.atan2(
    figure.points[joint][1] - figure.points[parent][1],
    figure.points[joint][0] - figure.points[parent][0]);
  const after = Math.atan2(towards[1] - pivot[1], towards[0] - pivot[0]);
  const length = distance(figure.points[joint], figure.points[parent]);
  const place = [pivot[0] + length * Math.cos(after), pivot[1] + length * Math.sin(after)];
  carry(moved, figure, tree, joint, place, swing ? after - before : 0);
}

/** Two limbs reach for a point: the middle joint bends to the side to which it was bent. */
function reach(moved, figure, tree, end, middle, start, to) {
  const [a, b, c] = [figure.points[start], figure.points[middle], figure.points[end]];
  const [upper, lower] = [distance(a, b), distance(b, c)];
  const far = Math.min(Math.max(distance(a, to), Math.abs(upper - lower) + 1e-3), upper + lower);
  const angle = Math.atan2(to[1] - a[1], to[0] - a[0]);
  const cosine = (upper ** 2 + far ** 2 - lower ** 2) / (2 * upper * far || 1);
  const bend = Math.acos(Math.min(Math.max(cosine, -1), 1));
  const side = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0 ? -1 : 1;
  moved.points[middle] = [
    a[0] + upper * Math.cos(angle + side * bend), a[1] + upper * Math.sin(angle + side * bend)];
  moved.points[end] = [a[0] + far * Math.cos(angle), a[1] + far * Math.sin(angle)];
  return moved;
}

export function shift(figure, dx, dy) {
  const moved = copy(figure);
  for (const point of moved.points) {
    point[0] += dx;
    point[1] += dy;
  }
  return moved;
}

/** Scale about [x, y], or about the middle of the figure. */
export function scale(figure, factor, about = null) {
  const [x, y] = about || middle(figure);
  const moved = copy(figure);
  moved.points = moved.points.map(p => [x + factor * (p[0] - x), y + factor * (p[1] - y)]);
  return moved;
}

export function middle(figure) {
  const shown = figure.points.filter((_, i) => figure.shown[i]);
  const points = shown.length ? shown : figure.points;
  return [0, 1].map(k => {
    const values = points.map(p => p[k]);
    return (Math.min(...values) + Math.max(...values)) / 2;
  });
}

/** Seen in a mirror: left and right change places and names. */
export function mirror(figure, names) {
  const [x] = middle(figure);
  const other = names.map((name, i) => {
    const twin = name.startsWith("right") ? name.replace("right", "left")
      : name.startsWith("left") ? name.replace("left", "right") : name;
    return names.includes(twin) ? names.indexOf(twin) : i;
  });
  return {
    points: other.map(i => [2 * x - figure.points[i][0], figure.points[i][1]]),
    shown: other.map(i => figure.shown[i]),
  };
}

/** Hide or show a joint. */
export function toggle(figure, joint) {
  const changed = copy(figure);
  changed.shown[joint] = !changed.shown[joint];
  return changed;
}
