// A client of Chainrule in TypeScript: what the program in main.ts needs, written out so that it can be read and copied.
//
// Types come from the contract (`npm run types`); the messages themselves are read from the same files when it starts.

import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { Dataset__Output } from "./contract/chainrule/v1/Dataset";
import type { QueryUploadResponse__Output } from "./contract/chainrule/v1/QueryUploadResponse";
import type { TrainingEvent__Output } from "./contract/chainrule/v1/TrainingEvent";
import type { TrainingJob, TrainingJob__Output } from "./contract/chainrule/v1/TrainingJob";
import type { UploadDatasetHeader } from "./contract/chainrule/v1/UploadDatasetHeader";
import type { ProtoGrpcType as Datasets } from "./contract/dataset_service";
import type { ModelInferResponse__Output } from "./contract/inference/ModelInferResponse";
import type { ModelMetadataResponse__Output } from "./contract/inference/ModelMetadataResponse";
import type { ProtoGrpcType as Inference } from "./contract/open_inference";
import type { ProtoGrpcType as Training } from "./contract/training_service";

const CHUNK_BYTES = 1 << 20;
const CALL_SECONDS = 30;
const WATCH_SECONDS = 600;
/** For how long a coordinator may be away. */
const PATIENCE_SECONDS = 120;

const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const contract = grpc.loadPackageDefinition(
  loadSync(
    ["chainrule/v1/training_service.proto", "chainrule/v1/dataset_service.proto", "chainrule/inference/open_inference.proto"],
    { includeDirs: [protos], longs: String, enums: String, defaults: true, oneofs: true },
  ),
) as unknown as Training & Datasets & Inference;

type Callback<T> = (error: grpc.ServiceError | null, value?: T) => void;

export class Client {
  private readonly training;
  private readonly datasets;
  private readonly inference;

  /** `server` is HOST:PORT. Nothing is sent before the first call. */
  constructor(server: string) {
    // A coordinator that starts again should be found within seconds.
    const options = { "grpc.max_reconnect_backoff_ms": 1_000 };
    const credentials = grpc.credentials.createInsecure();
    this.training = new contract.chainrule.v1.TrainingService(server, credentials, options);
    this.datasets = new contract.chainrule.v1.DatasetService(server, credentials, options);
    this.inference = new contract.inference.GRPCInferenceService(server, credentials, options);
  }

  close(): void {
    for (const service of [this.training, this.datasets, this.inference]) service.close();
  }

  /** Uploads a file. An upload that broke off goes on where it stood, and a finished one isn't sent again. */
  async upload(file: Buffer, header: UploadDatasetHeader): Promise<Dataset__Output> {
    const upload = { ...header, sizeBytes: file.length, sha256: createHash("sha256").update(file).digest("hex") };
    return patiently(async () => {
      const { datasetId, sizeBytes, sha256 } = upload;
      const { committedBytes } = await answer<QueryUploadResponse__Output>((done) =>
        this.datasets.queryUpload({ datasetId, sizeBytes, sha256 }, within(CALL_SECONDS), done),
      );
      return answer<Dataset__Output>((done) => {
        const call = this.datasets.uploadDataset(within(CALL_SECONDS), done);
        void send(call, upload, file, Number(committedBytes));
      });
    });
  }

  /** Creates a job. The id of the request makes it safe to repeat it when the answer got lost. */
  async create(job: TrainingJob): Promise<TrainingJob__Output> {
    const requestId = randomUUID();
    return patiently(() =>
      answer((done) => this.training.createTrainingJob({ trainingJob: job, requestId }, within(CALL_SECONDS), done)),
    );
  }

  /**
   * The events of a job, from the first to the last, each once: when the stream breaks off, another one goes on after the
   * last event that was seen. `lost` is told of that.
   */
  async *watch(name: string, lost: (seen: number, why: string) => void): AsyncGenerator<TrainingEvent__Output> {
    let seen = 0;
    let deadline = Date.now() + PATIENCE_SECONDS * 1_000;
    for (;;) {
      const stream = this.training.watchTrainingJob({ name, afterEvent: seen }, within(WATCH_SECONDS));
      try {
        for await (const { event } of stream) {
          deadline = Date.now() + PATIENCE_SECONDS * 1_000;
          if (!event) continue; // a snapshot of the progress
          seen = Number(event.number);
          yield event;
        }
        return;
      } catch (error) {
        if (!mayPass(error) || Date.now() > deadline) throw error;
        lost(seen, error.details);
        await sleep(500);
      } finally {
        stream.cancel();
      }
    }
  }

  /** The outputs for some rows, by the Open Inference Protocol. `model` is "<id>" or "@<alias>". */
  async predict(model: string, rows: number[][]): Promise<number[][]> {
    const { inputs } = await patiently(() =>
      answer<ModelMetadataResponse__Output>((done) => this.inference.modelMetadata({ name: model }, within(CALL_SECONDS), done)),
    );
    const input = {
      name: inputs[0]!.name,
      datatype: "FP32",
      shape: [rows.length, rows[0]!.length],
      contents: { fp32Contents: rows.flat() },
    };
    const { outputs } = await patiently(() =>
      answer<ModelInferResponse__Output>((done) =>
        this.inference.modelInfer({ modelName: model, inputs: [input] }, within(CALL_SECONDS), done),
      ),
    );
    const width = Number(outputs[0]!.shape[1]);
    const numbers = outputs[0]!.contents!.fp32Contents;
    return rows.map((_, row) => numbers.slice(row * width, (row + 1) * width));
  }
}

/** Writes a header and then the file's chunks, no faster than they are taken. */
async function send(
  call: ReturnType<InstanceType<Datasets["chainrule"]["v1"]["DatasetService"]>["uploadDataset"]>,
  header: UploadDatasetHeader,
  file: Buffer,
  begin: number,
): Promise<void> {
  // A call that is refused ends before everything is taken; its answer says why.
  const ended = once(call, "status").then(() => true);
  call.write({ header });
  for (let offset = begin; offset < file.length; offset += CHUNK_BYTES) {
    const data = file.subarray(offset, offset + CHUNK_BYTES);
    if (call.write({ chunk: { offset, data } })) continue;
    if (await Promise.race([ended, once(call, "drain").then(() => false)])) return;
  }
  call.end();
}

/** What a call answers. */
function answer<T>(call: (done: Callback<T>) => unknown): Promise<T> {
  return new Promise((resolve, reject) => call((error, value) => (error ? reject(error) : resolve(value as T))));
}

/** Repeats something, which must be safe to repeat, while the coordinator is away. */
async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + PATIENCE_SECONDS * 1_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!mayPass(error) || Date.now() > deadline) throw error;
      await sleep(500);
    }
  }
}

/** Whether an error is one that passes: the coordinator is away, or somebody else is at the same upload. */
function mayPass(error: unknown): error is grpc.ServiceError {
  const passing: unknown[] = [grpc.status.UNAVAILABLE, grpc.status.ABORTED];
  return error instanceof Error && "code" in error && passing.includes(error.code);
}

function within(seconds: number): grpc.CallOptions {
  return { deadline: Date.now() + seconds * 1_000 };
}
