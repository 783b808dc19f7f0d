// Uploads handwritten digits, trains a network on them, watches that, and asks the model which digits it sees.
//
//     node build/main.js HOST:PORT digits.csv [EPOCHS]
//
// The coordinator may be stopped and started again meanwhile.

import { readFile } from "node:fs/promises";

import { Client } from "./client.js";

const [server, path, epochs = "30"] = process.argv.slice(2);
if (!server || !path || !/^[1-9]\d*$/.test(epochs)) {
  console.error("usage: node build/main.js HOST:PORT digits.csv [EPOCHS]");
  process.exit(2);
}

const client = new Client(server);
try {
  await main(client, await readFile(path), Number(epochs));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  client.close();
}

async function main(client: Client, file: Buffer, epochs: number): Promise<void> {
  // The columns of the pixels become one, with 64 numbers a row.
  const groups = [
    { name: "y", columns: ["digit"] },
    { name: "x", columns: ["*"] },
  ];
  const dataset = await client.upload(file, { datasetId: "digits-by-node", format: "CSV", groups });
  console.log(`${dataset.name}: ${dataset.rows} rows`);

  const job = await client.create({
    displayName: "Digits, by Node",
    spec: {
      data: { dataset: dataset.name },
      network: { layers: [{ dense: { units: 64 } }, { relu: {} }, { dense: { units: 10 } }] },
      loss: { softmaxCrossEntropy: {} },
      optimizer: { learningRate: 0.002, adam: {} },
      epochs,
      seed: 7,
    },
  });
  console.log(`${job.name}: created`);

  const model = await trained(client, job.name);
  const { rows, digits } = table(file.toString());
  const outputs = await client.predict(model, rows);
  const right = outputs.filter((output, row) => output.indexOf(Math.max(...output)) === digits[row]).length;
  console.log(`model ${model}: ${right} of ${rows.length} digits are right`);
}

/** Tells how a job goes, until it ends; gives the id of its model. */
async function trained(client: Client, name: string): Promise<string> {
  let lost = false;
  const updates = client.watch(name, (seen, why) => {
    if (!lost) console.log(`lost the coordinator (${why}); going on after event ${seen}`);
    lost = true;
  });
  for await (const event of updates) {
    lost = false;
    if (event.epochCompleted) {
      const { epoch, trainingLoss, validationAccuracy } = event.epochCompleted;
      console.log(`epoch ${epoch}: loss ${trainingLoss.toFixed(4)}, accuracy ${validationAccuracy?.toFixed(3)}`);
    }
    if (event.stateChanged) {
      const { state, reason, error, result } = event.stateChanged;
      console.log(`${state} ${reason}`.trim());
      if (result) return result.model.replace("models/", "");
      if (error) throw new Error(`the job failed: ${error.message}`);
    }
  }
  throw new Error("the job was cancelled");
}

/** The pixels and the digit of every row of the file. */
function table(text: string): { rows: number[][]; digits: number[] } {
  const [header, ...lines] = text.trim().split(/\r?\n/).map((line) => line.split(","));
  const column = header!.indexOf("digit");
  if (column < 0) throw new Error('the file has no column "digit"');
  return {
    rows: lines.map((cells) => cells.filter((_, place) => place !== column).map(Number)),
    digits: lines.map((cells) => Number(cells[column])),
  };
}
