// One job, live: how far it is, its curves, its layers, and what is wrong with it.

import { lineChart } from "./chart.js";
import { bar, byId, clock, drawn, element, figure, lasting, percent, say, sentence, state, table, value, whole, words } from "./dom.js";
import { heatMap } from "./heat.js";
import { Story } from "./story.js";
import { follow, soon } from "./stream.js";

const PHASES = ["split", "wait", "forward", "backward", "gather", "average", "optimizer"];

const id = location.pathname.split("/").at(-1);
const story = new Story();
let job = {};
let seen = { looks: -1, events: -1, diagnoses: "" };

const loss = lineChart("Loss", { log: true });
const scores = lineChart("Validation scores");
const rate = lineChart("Learning rate");
const gradient = lineChart("Gradient norm, whole network", { log: true });
const gradients = heatMap("Gradient norm by layer", (layer) => value(layer.gradientNorm), { log: true });
const flat = heatMap("Dead or saturated share", (layer) => value(layer.deadRatio) ?? value(layer.saturatedRatio), { tell: percent });
const anatomy = element("figure", { "aria-label": "Anatomy of a step" });
anatomy.hidden = true;
byId("charts").append(loss.frame, scores.frame, rate.frame, anatomy, gradient.frame, gradients.frame, flat.frame);

function draw() {
  head();
  diagnoses();
  loss.draw([
    { name: "training, mean of the epoch", points: story.curve((epoch) => epoch.trainingLoss ?? 0) },
    { name: "validation", points: story.curve((epoch) => epoch.validationLoss) },
    { name: "training, one step", points: story.live.length > 1 || !story.epochs.length ? story.live.map(([step, y]) => [step, y]) : [], thin: true },
  ]);
  scores.draw(story.scores.map((name) => ({ name: words(name), points: story.curve((epoch) => epoch.validationScores?.[name]) })));
  rate.draw([{ name: "learning rate", points: rates() }]);
  dissect();
  if (seen.looks !== story.looks.length) {
    seen.looks = story.looks.length;
    gradient.draw([{ name: "gradient norm", points: story.looks.map((look) => [look.step, value(look.gradientNorm ?? 0)]) }]);
    gradients.draw(story.looks);
    flat.draw(story.looks);
    layers();
  }
  if (seen.events !== story.events[0]?.number) {
    seen.events = story.events[0]?.number;
    byId("events").replaceChildren(table(`The newest ${story.events.length}, without epochs and looks`, ["Number", "Time", "What"],
      story.events.map(({ number, time, text }) => [number, clock(time), text]), 3));
  }
}

function head() {
  const { progress, error, result } = story;
  const name = job.displayName || id;
  say(byId("name"), name);
  document.title = `${words(story.state)}: ${name} · Chainrule`;
  if (byId("state").firstChild?.textContent !== words(story.state)) byId("state").replaceChildren(state(story.state));
  say(byId("reason"), error ? `${error.reason}: ${error.message}` : story.reason);
  if (!byId("bar").firstChild) byId("bar").append(bar(progress, "Progress"));
  const done = Number(progress.step ?? 0), total = Number(progress.totalSteps ?? 0), speed = progress.samplesPerSecond;
  byId("bar").firstChild.max = total || 1;
  byId("bar").firstChild.value = done;
  facts({
    Step: total ? `${whole(done)} of ${whole(total)}` : undefined,
    Epoch: progress.epoch && (job.spec?.epochs ? `${whole(progress.epoch)} of ${whole(job.spec.epochs)}` : whole(progress.epoch)),
    "Training loss": done ? figure(Number(progress.trainingLoss ?? 0)) : undefined,
    "Validation loss": progress.validationLoss !== undefined ? figure(value(progress.validationLoss)) : undefined,
    "Rows a second": speed ? whole(speed) : undefined,
    Left: speed && progress.samples ? `about ${lasting(((total - done) * (progress.samples / done)) / speed)}` : undefined,
    Workers: progress.workers ? whole(progress.workers) : undefined,
    "Workers lost": Number(progress.workerFailures ?? 0) ? whole(progress.workerFailures) : undefined,
    "Slowest worker": straggler(),
    Took: result ? lasting(result.durationSeconds ?? 0) : undefined,
    Model: result?.model,
    Dataset: job.spec?.data?.dataset,
    Created: job.createTime && new Date(job.createTime).toLocaleString(),
  });
}

function straggler() {
  const ratio = value(story.looks.at(-1)?.stragglerRatio);
  return ratio === undefined ? undefined : `${figure(ratio)} times the median`;
}

function facts(given) {
  const list = byId("facts"), shown = Object.entries(given).filter(([, text]) => text !== undefined && text !== 0 && text !== "");
  const names = shown.map(([name]) => name).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...shown.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
  }
  shown.forEach(([, text], index) => say(list.children[index].lastChild, text));
}

function diagnoses() {
  const now = [...story.diagnoses.values()];
  const said = JSON.stringify([now, story.over]);
  if (seen.diagnoses === said) return;
  seen.diagnoses = said;
  const card = (diagnosis, kind, when) => element("article", { class: kind },
    element("h3", {}, words(diagnosis.trouble)),
    element("p", { class: "quiet" }, `${when}${diagnosis.layer ? `, in ${diagnosis.layer}` : ""}`),
    element("p", {}, sentence(diagnosis.evidence ?? "")), element("p", {}, sentence(diagnosis.advice ?? "")));
  byId("diagnoses").replaceChildren(
    ...now.map((diagnosis) => card(diagnosis, "diagnosis", `Since step ${whole(diagnosis.step)}`)),
    ...(now.length ? [] : [element("p", { class: "quiet" }, "Nothing is known to be wrong.")]));
  byId("over").hidden = story.over.length === 0;
  const [summary, past] = byId("over").children;
  say(summary, `${story.over.length} that ${story.over.length === 1 ? "is" : "are"} over`);
  past.replaceChildren(...story.over.map((diagnosis) => card(diagnosis, "diagnosis over",
    `From step ${whole(diagnosis.step)} to ${whole(diagnosis.until)}`)));
}

function rates() {
  const points = [...story.curve((epoch) => epoch.learningRate ?? 0), ...story.live.map(([step, , y]) => [step, y])];
  return [...new Map(points)].sort(([a], [b]) => a - b);
}

function dissect() {
  const seconds = story.progress.phaseSeconds ?? {};
  const phases = PHASES.filter((phase) => seconds[phase] !== undefined);
  const all = phases.reduce((sum, phase) => sum + Number(seconds[phase]), 0);
  anatomy.hidden = all === 0;
  if (anatomy.hidden) return;
  const patch = (phase) => drawn("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawn("rect", { width: "1", height: "1", fill: `var(--s${PHASES.indexOf(phase) + 1})` }));
  const stack = element("div", { class: "stack", "aria-hidden": "true" }, ...phases.map(patch));
  phases.forEach((phase, index) => { stack.children[index].style.flex = `${Number(seconds[phase]) / all} 1 0`; });
  const named = (phase) => element("span", {}, patch(phase), phase);
  anatomy.replaceChildren(element("h2", {}, "Anatomy of a step"), stack, table("Mean of the last seconds", ["Phase", "Milliseconds", "Share"],
    phases.map((phase) => [named(phase), figure(Number(seconds[phase]) * 1000), percent(Number(seconds[phase]) / all)])));
}

function layers() {
  const look = story.looks.at(-1);
  if (!look) return byId("layers").replaceChildren(element("p", { class: "quiet" }, "Nobody has looked at them yet."));
  return byId("layers").replaceChildren(table(`As of step ${whole(look.step)}`,
    ["Layer", "Kind", "Gradient norm", "Parameter norm", "Update ratio", "Dead", "Saturated", "Output mean", "Deviation"],
    look.layers.map((layer) => [layer.layer, layer.kind,
      ...[layer.gradientNorm, layer.parameterNorm, layer.updateRatio].map((number) => figure(value(number))),
      ...[layer.deadRatio, layer.saturatedRatio].map((number) => percent(value(number))),
      ...[layer.outputMean, layer.outputDeviation].map((number) => figure(value(number ?? 0)))]), 2));
}

const redraw = soon(draw);

async function begin() {
  const answer = await fetch(`/api/jobs/${id}`);
  const found = await answer.json();
  if (!answer.ok) {
    say(byId("reason"), found.error.message);
    return;
  }
  job = found;
  story.state = job.state;
  story.update(job.progress ?? {});
  say(byId("spec"), JSON.stringify(job.spec, null, 2));
  draw();
  follow(`/api/jobs/${id}/stream`, {
    event: (event) => { story.event(event); redraw(); },
    progress: (progress) => { story.update(progress); redraw(); },
    end: finish,
  });
}

// Of a job that has ended no more progress is told: its standing is asked for.
async function finish() {
  const answer = await fetch(`/api/jobs/${id}`);
  if (answer.ok) story.update((await answer.json()).progress ?? {});
  redraw();
}

begin();
