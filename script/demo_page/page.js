// The page: what is chosen, what is drawn, what the buttons do.

import {download, poseFile, sideBySide} from "./download.js";
import {Editor, drawing} from "./editor.js";
import {darken, light} from "./origin.js";
import {Latest, Refusal, generate, getJson, postFile, postJson} from "./server.js";
import * as skeleton from "./skeleton.js";

const $ = id => document.getElementById(id);
const PER_PAGE = 12; // thumbnails
const MOST_STEPS = 200; // that undo takes back

let world; // what the server told at the start, and the tree of the joints
let neutral; // a standing figure: where missing joints are put
let state = {source: null, sourceFigure: null, figure: null, base: null};
let picture = null; // {blob, url, state} of the newest answer
let past = [], future = [];
let poseEditor, sourceEditor, latest, origins;
let pointed = null; // (y, x) of the picture whose origin is shown
const moments = []; // when the last answers came
let speedTold = -Infinity; // when their rate was written

// ---- messages ------------------------------------------------------------------------------------

function tell(text, kind = "error") {
  $("alert").hidden = !text;
  $("alert").className = `alert ${kind}`;
  $("alert-text").textContent = text;
}

/** Run something that may be refused; the refusal becomes a sentence on the page. */
async function attempt(work) {
  document.body.classList.add("waiting");
  try {
    tell("");
    return await work();
  } catch (error) {
    failed(error);
    return null;
  } finally {
    document.body.classList.remove("waiting");
  }
}

function failed(error) {
  if (!(error instanceof Refusal)) console.error(error);
  tell(error instanceof Refusal ? error.message : `an unexpected error: ${error.message}`);
  $("speed").className = "speed bad";
  speedTold = -Infinity;
}

// ---- the picture ---------------------------------------------------------------------------------

const question = () => ({
  source: state.source.id,
  source_keypoints: skeleton.toKeypoints(state.sourceFigure),
  keypoints: skeleton.toKeypoints(state.figure),
});

async function answered({blob, milliseconds}, asked) {
  const bitmap = await createImageBitmap(blob);
  const canvas = $("result");
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  picture = {blob, asked};
  canvas.dataset.asked = JSON.stringify(asked);
  if ($("speed").classList.contains("bad")) tell("");
  tellSpeed(milliseconds);
}

/** How fast pictures come, now and then: every new text costs the page a layout. */
function tellSpeed(milliseconds) {
  const now = performance.now();
  moments.push(now);
  while (moments[0] < now - 1000) moments.shift();
  if (now - speedTold < 250) return;
  speedTold = now;
  const rate = moments.length > 4 ? ` · ${moments.length} a second` : "";
  $("speed").className = "speed good";
  $("speed-text").textContent = `${milliseconds.toFixed(0)} ms a picture${rate}`;
}

// ---- where a point of it comes from --------------------------------------------------------------

function point(event) {
  if (!$("show-origin").checked || poseEditor.gesture?.begun) return;
  const [x, y] = poseEditor.place(event);
  const [height, width] = world.frame;
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  pointed = [y, x];
  origins.want();
}

const clearOrigin = () => darken($("origin"));

function drawOrigin(told) {
  if ($("show-origin").checked) light($("origin"), told, world.frame);
}

// ---- what is chosen ------------------------------------------------------------------------------

const snapshot = () => ({...state});

/** Before a change that undo takes back. */
function begin() {
  past.push(snapshot());
  if (past.length > MOST_STEPS) past.shift();
  future = [];
}

/** Show a state and ask for its picture. */
function show(next) {
  state = next;
  poseEditor.set(state.figure);
  sourceEditor.set(state.sourceFigure);
  const address = `source/${state.source.id}/picture`;
  if ($("source-picture").getAttribute("src") !== address) $("source-picture").src = address;
  $("source-name").textContent = state.source.name;
  $("crop").hidden = !state.source.own;
  for (const button of $("people").children) {
    button.setAttribute("aria-pressed", button.dataset.id === state.source.id);
  }
  refresh();
}

/** After any change of the figures. */
function refresh() {
  clearOrigin();
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  const count = state.figure.shown.filter(Boolean).length;
  const counted = `${count} of ${state.figure.shown.length} shown`;
  if ($("joint-count").textContent !== counted) $("joint-count").textContent = counted;
  for (const [joint, box] of [...$("joint-list").querySelectorAll("input")].entries()) {
    box.checked = state.figure.shown[joint];
  }
  latest.want();
}

function step(from, to) {
  if (!from.length) return;
  to.push(snapshot());
  show(from.pop());
}

function changePose(figure, base = state.base) {
  begin();
  show({...state, figure, base});
}

const figureOf = keypoints => skeleton.fromKeypoints(keypoints, world.tree, neutral);

/** A figure with the limb lengths of a person, when that is wanted. */
async function fitted(figure, body) {
  if (!$("fit").checked) return figure;
  const fields = {
    source_keypoints: skeleton.toKeypoints(body), keypoints: skeleton.toKeypoints(figure)};
  return figureOf((await postJson("fit", fields)).keypoints);
}

const takePose = keypoints => attempt(async () => {
  const figure = await fitted(figureOf(keypoints), state.sourceFigure);
  changePose(figure, figure);
});

const takePerson = ({keypoints, ...source}) => attempt(async () => {
  const sourceFigure = figureOf(keypoints);
  const figure = await fitted(state.figure, sourceFigure);
  begin();
  show({source, sourceFigure, figure, base: figure});
});

const refit = () => attempt(async () => changePose(await fitted(state.figure, state.sourceFigure)));

const isPose = file => /json/.test(file.type) || /\.json$/i.test(file.name);

const uploadPerson = file => attempt(async () => {
  tell(`reading ${file.name} …`, "info");
  const answer = await postFile("photo", file, world.max_upload);
  await takePerson(answer);
  tell(answer.note, "info");
  if (!answer.found) { // the skeleton has to be put by hand
    enlarge(true);
    $("person-card").scrollIntoView({block: "nearest"});
  }
});

const uploadPose = file => attempt(async () => {
  tell(`reading ${file.name} …`, "info");
  await takePose((await postFile("pose", file, world.max_upload)).keypoints);
});

/** A larger picture of the person, for fingers and small corrections. */
function enlarge(on) {
  $("person-card").classList.toggle("large", on);
  $("enlarge").setAttribute("aria-pressed", on);
}

const crop = () => attempt(async () => {
  const fields = {source_keypoints: skeleton.toKeypoints(state.sourceFigure)};
  await takePerson(await postJson(`source/${state.source.id}/crop`, fields));
});

// ---- lists ---------------------------------------------------------------------------------------

function button(parent, label, chosen, ...content) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "tile";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", chosen);
  made.append(...content);
  parent.append(made);
  return made;
}

function thumbnail(id) {
  const image = document.createElement("img");
  image.src = `thumbnail/${id}`;
  image.alt = "";
  return image;
}

/** The next samples in a list of thumbnails. */
async function fill(list, first, chosen, decorate) {
  const samples = await getJson(`samples/${first % world.samples}`);
  list.replaceChildren();
  for (const sample of samples.slice(0, PER_PAGE)) {
    const made = button(list, sample.name, () => chosen(sample), thumbnail(sample.id));
    made.dataset.id = sample.id;
    decorate(made, sample);
  }
}

const fillPeople = first => fill($("people"), first, takePerson, (made, sample) => {
  made.setAttribute("aria-pressed", sample.id === state.source?.id);
});

const fillPoses = first => fill($("poses"), first, sample => takePose(sample.keypoints),
  (made, sample) => made.append(drawing(skeleton.fromKeypoints(sample.keypoints), world)));

function fillPresets() {
  for (const {name, keypoints} of world.presets) {
    button($("presets"), name, () => takePose(keypoints),
      drawing(skeleton.fromKeypoints(keypoints), world));
  }
}

function fillJoints() {
  for (const [joint, name] of world.joints.entries()) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.addEventListener("change", () => poseEditor.toggle(joint));
    label.append(box, name);
    $("joint-list").append(label);
  }
}

// ---- keeping and downloading ---------------------------------------------------------------------

/** The picture of what is shown now, also when a newer one is still on its way. */
async function finished() {
  const asked = question();
  if (JSON.stringify(picture?.asked) === JSON.stringify(asked)) return picture;
  return {...await generate(asked), asked};
}

const keep = () => attempt(async () => {
  const kept = snapshot();
  const {blob} = await finished();
  const item = document.createElement("div");
  item.className = "kept";
  const image = document.createElement("img");
  image.src = URL.createObjectURL(blob);
  image.alt = "";
  button(item, "Bring this person and pose back", () => { begin(); show(kept); }, image);
  const remove = button(item, "Remove", () => {
    URL.revokeObjectURL(image.src);
    item.remove();
    $("kept-empty").hidden = $("kept").children.length > 0;
  });
  remove.className = "remove";
  remove.textContent = "×";
  $("kept").prepend(item);
  $("kept-empty").hidden = true;
});

const stem = () => state.source.name.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "_");
const getPicture = () => attempt(async () => download((await finished()).blob, `${stem()}_posed.png`));
const getPair = () => attempt(async () => {
  const pair = await sideBySide($("source-picture"), (await finished()).blob, world.frame);
  download(pair, `${stem()}_pair.png`);
});
const getPose = () => download(poseFile(skeleton.toKeypoints(state.figure), world.frame), "pose.json");

// ---- buttons, keys, drops ------------------------------------------------------------------------

const toggleSkeleton = () => $("stage").classList.toggle("bare", !$("show-skeleton").checked);
const actions = {
  undo: () => step(past, future),
  redo: () => step(future, past),
  mirror: () => changePose(skeleton.mirror(state.figure, world.joints)),
  smaller: () => changePose(skeleton.scale(state.figure, 1 / 1.05)),
  larger: () => changePose(skeleton.scale(state.figure, 1.05)),
  reset: () => changePose(state.base),
  save: keep,
  crop,
  enlarge: () => enlarge(!$("person-card").classList.contains("large")),
  "get-picture": getPicture,
  "get-pair": getPair,
  "get-pose": getPose,
  "alert-close": () => tell(""),
  "own-photo": () => $("photo-file").click(),
  "pose-photo": () => $("pose-file").click(),
};
const keys = {m: "mirror", s: "save", r: "reset", "+": "larger", "=": "larger", "-": "smaller"};

function pressed(event) {
  if (event.target.matches?.("input, textarea, select") && event.target.type !== "checkbox") return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") actions[event.shiftKey ? "redo" : "undo"]();
    else if (key === "y") actions.redo();
    else return;
  } else if (event.altKey) {
    return;
  } else if (key === "k") {
    $("show-skeleton").checked = !$("show-skeleton").checked;
    toggleSkeleton();
  } else if (key in keys) {
    actions[keys[key]]();
  } else {
    return;
  }
  event.preventDefault();
}

function receive(file, onPose) {
  if (file) (onPose || isPose(file) ? uploadPose : uploadPerson)(file);
}

function listenForFiles() {
  for (const [id, onPose] of [["photo-file", false], ["pose-file", true]]) {
    $(id).addEventListener("change", () => {
      receive($(id).files[0], onPose);
      $(id).value = "";
    });
  }
  const overPose = event => $("pose-card").contains(event.target);
  let leaving;
  addEventListener("dragover", event => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    clearTimeout(leaving);
    leaving = setTimeout(() => { $("drop").hidden = true; }, 200);
    $("drop").hidden = false;
    $("drop-text").textContent = overPose(event)
      ? "Take the pose of this photo or pose file" : "Pose the person of this photo";
  });
  addEventListener("drop", event => {
    event.preventDefault();
    $("drop").hidden = true;
    receive(event.dataTransfer.files[0], overPose(event));
  });
  addEventListener("paste", event => receive(event.clipboardData?.files[0], false));
}

function listen() {
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
  $("show-skeleton").addEventListener("change", toggleSkeleton);
  $("show-origin").addEventListener("change", clearOrigin);
  for (const kind of ["pointermove", "pointerdown"]) $("pose-editor").addEventListener(kind, point);
  $("fit").addEventListener("change", () => { if ($("fit").checked) refit(); });
  let people = 0, poses = PER_PAGE;
  $("more-people").addEventListener("click", () => attempt(() => fillPeople(people += PER_PAGE)));
  $("more-poses").addEventListener("click", () => attempt(() => fillPoses(poses += PER_PAGE)));
  addEventListener("keydown", pressed);
  listenForFiles();
}

function makeEditors() {
  poseEditor = new Editor($("pose-editor"), world, {
    rigid: () => $("keep-lengths").checked,
    begin,
    changed: () => { state.figure = poseEditor.figure; refresh(); },
  });
  sourceEditor = new Editor($("source-editor"), world, {
    single: true,
    begin,
    changed: () => { state.sourceFigure = sourceEditor.figure; refresh(); },
  });
}

async function start() {
  world = await getJson("start");
  world.tree = skeleton.family(world.limbs, world.joints.length);
  neutral = skeleton.fromKeypoints(world.presets[0].keypoints, world.tree);
  document.documentElement.style.setProperty("--shape", `${world.frame[1]} / ${world.frame[0]}`);
  document.documentElement.style.setProperty("--ratio", world.frame[1] / world.frame[0]);
  $("model").textContent = `${world.title} · ${world.model} · ${world.load_size.join(" × ")} pixels`;
  latest = new Latest({question, ask: generate, answer: answered, failure: failed});
  origins = new Latest({
    question: () => ({...question(), point: pointed}),
    ask: fields => postJson("origin", fields),
    answer: drawOrigin,
    failure: error => { $("show-origin").checked = false; clearOrigin(); failed(error); },
  });
  makeEditors();
  fillPresets();
  fillJoints();
  listen();
  const joints = sample => sample.keypoints.filter(([y]) => y !== skeleton.MISSING).length;
  const samples = (await getJson("samples/0")).slice(0, PER_PAGE);
  const {keypoints, ...source} = samples.reduce((a, b) => joints(b) > joints(a) ? b : a);
  const sourceFigure = figureOf(keypoints);
  const figure = await fitted(figureOf(world.presets[3].keypoints), sourceFigure);
  show({source, sourceFigure, figure, base: figure});
  await Promise.all([fillPeople(0), fillPoses(PER_PAGE)]);
}

start().catch(failed);
