// What is known of a job, from its events and its progress as they come.

import { value } from "./dom.js";

const MOST_LIVE = 600;
const MOST_EVENTS = 100;

export class Story {
  state = "QUEUED";
  reason = "";
  error;
  result;
  progress = {};
  epochs = [];
  live = []; // [step, loss, learning rate]: thinned out, so that a long job doesn't fill the memory
  looks = [];
  diagnoses = new Map();
  over = [];
  events = [];

  // An event, in JSON as the contract has it.
  event(event) {
    const kind = Object.keys(event).find((key) => key !== "number" && key !== "time");
    const what = event[kind] ?? {};
    this.#take(kind, what);
    const text = tell(kind, what);
    if (text) this.events = [{ number: event.number, time: event.time, text }, ...this.events].slice(0, MOST_EVENTS);
  }

  #take(kind, what) {
    switch (kind) {
      case "stateChanged":
        this.state = what.state;
        this.reason = what.reason ?? "";
        this.error = what.error;
        this.result = what.result;
        break;
      case "epochCompleted":
        this.epochs.push({ ...what, step: Number(what.step ?? 0) });
        break;
      case "healthSampled":
        this.looks.push({ ...what, step: Number(what.step ?? 0), layers: what.layers ?? [] });
        break;
      case "rolledBack": {
        const kept = Number(what.step ?? 0);
        this.epochs = this.epochs.filter(({ step }) => step <= kept);
        this.looks = this.looks.filter(({ step }) => step <= kept);
        this.live = this.live.filter(([step]) => step <= kept);
        break;
      }
      case "diagnosed":
        this.diagnoses.set(what.diagnosis.trouble, what.diagnosis);
        break;
      case "recovered":
        if (this.diagnoses.has(what.trouble)) {
          this.over = [{ ...this.diagnoses.get(what.trouble), until: what.step }, ...this.over].slice(0, 20);
          this.diagnoses.delete(what.trouble);
        }
    }
  }

  update(progress) {
    this.progress = progress;
    const step = Number(progress.step ?? 0);
    if (step > (this.live.at(-1)?.[0] ?? 0)) this.live.push([step, Number(progress.trainingLoss ?? 0), Number(progress.learningRate ?? 0)]);
    if (this.live.length > MOST_LIVE) this.live = this.live.filter((_, index) => index % 2 === 0);
  }

  // A curve of epochs: what `read` gives of each, where it gives anything.
  curve(read) {
    return this.epochs.map((epoch) => [epoch.step, value(read(epoch))]).filter(([, y]) => y !== undefined);
  }

  get scores() {
    return [...new Set(this.epochs.flatMap((epoch) => Object.keys(epoch.validationScores ?? {})))].sort();
  }
}

// A field that was changed, with its new value; paths are as in JSON: "spec.minWorkers".
function setting(job) {
  return (path) => {
    const found = path.split(".").reduce((within, name) => within?.[name], job) ?? "";
    const text = typeof found === "object" ? Object.entries(found).map((pair) => pair.join("=")).join(" ") : found;
    return `${path.split(".").at(-1).replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${text}`;
  };
}

function tell(kind, what) {
  const words = (name) => name.toLowerCase().replaceAll("_", " ");
  const worker = `Worker ${what.worker ?? 0}`;
  switch (kind) {
    case "stateChanged": {
      const why = what.error ? `${what.error.reason}: ${what.error.message}` : what.reason;
      return `Now ${words(what.state)}${why ? `: ${why}` : ""}`;
    }
    case "checkpointSaved": return `A checkpoint of step ${what.step ?? 0} was saved`;
    case "workerLost": return `${worker} was lost at step ${what.step ?? 0}: ${what.reason ?? ""}`;
    case "workerJoined": return `${worker} joined at step ${what.step ?? 0}${what.exchange ? ` by ${words(what.exchange)}` : ""}`;
    case "rolledBack":
      return `Step ${what.divergedStep ?? 0} diverged (${what.reason ?? ""}); back to step ${what.step ?? 0}, with learning rate ${what.learningRate}`;
    case "settingsChanged":
      return `Changed: ${(what.updateMask ?? "").split(",").map(setting(what.trainingJob ?? {})).join(", ")}`;
    case "learningRateChanged": return `Learning rate ${what.learningRate} from step ${what.step ?? 0} on`;
    case "diagnosed": return `Found at step ${what.diagnosis.step ?? 0}: ${words(what.diagnosis.trouble)}`;
    case "recovered": return `Over at step ${what.step ?? 0}: ${words(what.trouble)}`;
    default: return "";
  }
}
