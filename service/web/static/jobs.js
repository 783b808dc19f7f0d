// All jobs: a row each, which changes in place, so that focus and selection stay.

import { bar, byId, clock, element, figure, say, state, value, whole, words } from "./dom.js";
import { follow } from "./stream.js";

const rows = new Map();

function show({ states, jobs }) {
  byId("states").replaceChildren(...Object.entries(states).filter(([, count]) => count)
    .map(([name, count]) => element("li", {}, element("b", {}, whole(count)), element("span", {}, words(name).toLowerCase()))));
  byId("none").hidden = jobs.length > 0;
  const body = byId("jobs");
  const names = new Set(jobs.map((job) => job.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  jobs.forEach((job, index) => {
    const row = rows.get(job.name) ?? added(job);
    // Moved only where it must be: a row that is moved loses the focus.
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    update(row, job);
  });
}

function added(job) {
  const id = job.name.slice("jobs/".length);
  const name = element("th", { scope: "row", class: "name" }, element("a", { href: `/jobs/${id}` }, job.displayName || id),
    ...(job.displayName ? [element("small", {}, id)] : []));
  const cells = ["", "", "number", "number", "number", "number", "", ""].map((kind) => element("td", kind ? { class: kind } : {}));
  cells[7].append(clock(job.createTime));
  const row = element("tr", {}, name, ...cells);
  rows.set(job.name, row);
  return row;
}

function update(row, job) {
  const progress = job.progress ?? {};
  const [where, how, loss, validation, speed, workers, diagnoses] = [...row.children].slice(1);
  if (where.dataset.state !== job.state) {
    where.dataset.state = job.state;
    where.replaceChildren(state(job.state), element("small"));
  }
  say(where.lastChild, job.error?.reason ?? job.stateReason ?? "");
  if (!how.firstChild) how.append(bar(progress, `Progress of ${job.displayName || job.name}`), element("small"));
  how.firstChild.max = Number(progress.totalSteps ?? 0) || 1;
  how.firstChild.value = Number(progress.step ?? 0);
  say(how.lastChild, `step ${whole(progress.step)} of ${whole(progress.totalSteps)}`);
  say(loss, figure(Number(progress.step ?? 0) ? Number(progress.trainingLoss ?? 0) : undefined));
  say(validation, figure(value(progress.validationLoss)));
  say(speed, progress.samplesPerSecond ? whole(progress.samplesPerSecond) : "–");
  say(workers, progress.workers ? whole(progress.workers) : "–");
  const troubles = (job.diagnoses ?? []).map((diagnosis) => diagnosis.trouble);
  if (diagnoses.dataset.troubles !== troubles.join()) {
    diagnoses.dataset.troubles = troubles.join();
    diagnoses.replaceChildren(...troubles.map((trouble) => element("span", { class: "trouble" }, words(trouble))));
  }
}

follow("/api/jobs/stream", { jobs: show });
