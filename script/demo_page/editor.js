// A skeleton drawn over a picture, and the hands on it: mouse, fingers, keys.

import * as skeleton from "./skeleton.js";

const NEAR = {mouse: 18, pen: 22, touch: 34}; // pixels within which a joint is taken
const TAP = 350; // milliseconds between the two clicks of a double click
const STEP = 2; // pixels of the frame for an arrow key
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function element(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

/** Set attributes of a shape; those that stay the same cost no layout. */
function change(shape, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (shape.getAttribute(key) !== String(value)) shape.setAttribute(key, value);
  }
}

/** The side of the body that a limb or joint belongs to, a class of the style sheet. */
export const sideOf = name => name.split(" ")[0].replace(/^(?!right|left).*/, "middle");

/** A skeleton that is only looked at: limbs as lines in an SVG of the frame's shape. */
export function drawing(figure, world) {
  const [height, width] = world.frame;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "drawing");
  svg.style.strokeWidth = height / 45;
  for (const [a, b] of world.limbs) {
    if (!figure.shown[a] || !figure.shown[b]) continue;
    const [[x1, y1], [x2, y2]] = [figure.points[a], figure.points[b]];
    element("line", {x1, y1, x2, y2, class: sideOf(world.joints[b])}, svg);
  }
  return svg;
}

export class Editor {
  /**
   * `world`: frame [h, w], joints, limbs, tree. `single`: a joint moves alone, as for a correction.
   * `rigid()`: whether limbs keep their length. `begin()` is called before a change that one undo
   * takes back, `changed()` after every change.
   */
  constructor(svg, world, {single = false, rigid = () => true, begin, changed}) {
    Object.assign(this, {svg, world, single, rigid, begin, changed});
    const [height, width] = world.frame;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.pointers = new Map();
    this.gesture = null;
    this.lastTap = {joint: -1, time: 0};
    this.lastSmallChange = -Infinity;
    this.makeShapes();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  makeShapes() {
    const {joints, limbs} = this.world;
    const under = element("g", {class: "halo"}, this.svg);
    const over = element("g", {class: "limbs"}, this.svg);
    this.lines = limbs.map(([a, b]) => ({
      a, b,
      shapes: [
        element("line", {}, under),
        element("line", {class: sideOf(joints[b])}, over),
      ],
    }));
    const group = element("g", {class: "joints"}, this.svg);
    this.circles = joints.map((name, joint) => {
      const circle = element("circle", {
        class: sideOf(name), tabindex: 0, role: "button", "aria-label": name, "aria-description": "joint",
      }, group);
      circle.addEventListener("keydown", event => this.key(event, joint));
      return circle;
    });
  }

  set(figure) {
    this.figure = figure;
    this.draw();
  }

  draw() {
    if (!this.figure || !this.svg.clientWidth) return;
    const {points, shown} = this.figure;
    const unit = this.world.frame[1] / this.svg.clientWidth; // frame pixels a screen pixel
    const small = this.svg.clientWidth < 260;
    for (const {a, b, shapes} of this.lines) {
      for (const [k, line] of shapes.entries()) {
        change(line, {
          x1: points[a][0], y1: points[a][1], x2: points[b][0], y2: points[b][1],
          "stroke-width": unit * ((small ? 2 : 3.5) + (k ? 0 : 2.5)),
        });
        line.classList.toggle("away", !shown[a] || !shown[b]);
      }
    }
    for (const [joint, circle] of this.circles.entries()) {
      const face = joint === 0 || joint > 13;
      const radius = (small ? 3 : 6.5) * (face ? 0.7 : 1) * (this.held === joint ? 1.35 : 1);
      change(circle, {
        cx: points[joint][0], cy: points[joint][1], r: unit * radius,
        "stroke-width": unit * (small ? 1 : 2), "aria-pressed": shown[joint],
      });
      circle.classList.toggle("away", !shown[joint]);
      circle.classList.toggle("held", this.held === joint);
    }
  }

  change(figure) {
    this.set(figure);
    this.changed();
  }

  // ---- pointers --------------------------------------------------------------------------------

  listen() {
    const {svg} = this;
    svg.addEventListener("pointerdown", event => this.down(event));
    svg.addEventListener("pointermove", event => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      svg.addEventListener(kind, event => this.up(event));
    }
    svg.addEventListener("wheel", event => this.wheel(event), {passive: false});
    svg.addEventListener("contextmenu", event => event.preventDefault());
  }

  /** A point of the screen in the frame. */
  place(event) {
    const box = this.svg.getBoundingClientRect();
    const [height, width] = this.world.frame;
    return [
      (event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
  }

  /** The joint under a pointer, -1 for none; one that is shown is preferred. */
  nearest(event) {
    const [x, y] = this.place(event);
    const unit = this.world.frame[1] / this.svg.clientWidth;
    const reach = Math.min(NEAR[event.pointerType] || NEAR.mouse, this.svg.clientWidth / 8) * unit;
    let best = -1, least = reach;
    this.figure.points.forEach(([px, py], joint) => {
      const away = Math.hypot(px - x, py - y) * (this.figure.shown[joint] ? 1 : 2.5);
      if (away < least) [best, least] = [joint, away];
    });
    return best;
  }

  down(event) {
    if (event.button > 0) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    if (this.pointers.size === 2) {
      this.startGesture(-1);
      return;
    }
    const joint = this.nearest(event);
    const now = performance.now();
    if (joint >= 0) {
      this.circles[joint].focus({focusVisible: false, preventScroll: true});
      if (joint === this.lastTap.joint && now - this.lastTap.time < TAP) {
        this.lastTap = {joint: -1, time: 0};
        this.toggle(joint);
        return;
      }
    }
    this.lastTap = {joint, time: now};
    this.startGesture(joint);
  }

  startGesture(joint) {
    this.held = joint;
    this.gesture = {
      joint, figure: this.figure, begun: false,
      pointers: new Map([...this.pointers].map(([id, place]) => [id, [...place]])),
    };
    this.draw();
  }

  move(event) {
    if (!this.pointers.has(event.pointerId) || !this.gesture) return;
    this.pointers.set(event.pointerId, this.place(event));
    const figure = this.gestured(event);
    if (!figure) return;
    if (!this.gesture.begun) {
      this.gesture.begun = true;
      this.lastTap = {joint: -1, time: 0};
      this.begin();
    }
    this.change(figure);
  }

  /** The figure that the gesture makes of the one with which it began; null before it moves. */
  gestured(event) {
    const {joint, figure, pointers} = this.gesture;
    const ids = [...pointers.keys()];
    const [from, to] = [pointers.get(ids[0]), this.pointers.get(ids[0])];
    if (!to) return null;
    if (ids.length === 2) {
      const [otherFrom, otherTo] = [pointers.get(ids[1]), this.pointers.get(ids[1])];
      if (!otherTo) return null;
      const spread = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
      const factor = spread(to, otherTo) / spread(from, otherFrom);
      const centre = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      const [before, after] = [centre(from, otherFrom), centre(to, otherTo)];
      const scaled = skeleton.scale(figure, factor, before);
      return skeleton.shift(scaled, after[0] - before[0], after[1] - before[1]);
    }
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    if (!this.gesture.begun && Math.hypot(dx, dy) < 0.4) return null;
    if (joint < 0) return skeleton.shift(figure, dx, dy);
    return this.moved(figure, joint, dx, dy, event.shiftKey);
  }

  moved(figure, joint, dx, dy, shift) {
    const to = [figure.points[joint][0] + dx, figure.points[joint][1] + dy];
    if (this.single) {
      const changed = skeleton.copy(figure);
      changed.points[joint] = to;
      return changed;
    }
    return skeleton.drag(figure, this.world.tree, joint, to, this.rigid() !== shift);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size === 1) {
      this.startGesture(-1); // one finger of a pinch is left: it moves the figure
      return;
    }
    this.held = -1;
    this.gesture = null;
    this.draw();
  }

  wheel(event) {
    event.preventDefault();
    this.beginSmall();
    const factor = Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 80) / 800);
    this.change(skeleton.scale(this.figure, factor, this.place(event)));
  }

  // ---- keys ------------------------------------------------------------------------------------

  key(event, joint) {
    const direction = ARROWS[event.key];
    if (direction) {
      this.beginSmall();
      const step = event.ctrlKey || event.metaKey ? 4 * STEP : STEP;
      const [dx, dy] = direction.map(v => v * step);
      this.change(this.moved(this.figure, joint, dx, dy, event.shiftKey));
    } else if (["h", "H", "Delete", " ", "Enter"].includes(event.key) && !event.ctrlKey) {
      this.toggle(joint);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  toggle(joint) {
    this.begin();
    this.change(skeleton.toggle(this.figure, joint));
  }

  /** Many small changes in a row are one for undo. */
  beginSmall() {
    const now = performance.now();
    if (now - this.lastSmallChange > 600) this.begin();
    this.lastSmallChange = now;
  }
}
