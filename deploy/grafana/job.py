"""What one job does: its curves, its steps, its layers and its workers."""

from deploy.grafana.panels import Query, distribution, graph, number, rows_of_colour, timeline


def of_job(metric: str, *matchers: str) -> str:
    """The series of the chosen job."""
    selector = ", ".join(('job_id="$job_id"', *matchers))
    return f"{metric}{{{selector}}}"


def by_layer(metric: str) -> Query:
    """A line for each layer."""
    return Query(of_job(metric), "{{layer}}")


ROWS = {
    "This job": [
        number(
            "State",
            "Where the job is in its life, from queued to its end.",
            Query(of_job("chainrule_job_info"), "{{state}}"),
            by_name=True,
        ),
        number(
            "Progress",
            "Steps applied, of all that the job has. Early stopping may end it before.",
            Query(f"{of_job('chainrule_steps_total')} / {of_job('chainrule_steps_expected')}"),
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Time left",
            "Estimated from the pace of its newest steps.",
            Query(of_job("chainrule_remaining_seconds")),
            unit="s",
            absent="unknown",
        ),
        number(
            "Training loss",
            "Mean over the rows of the newest step.",
            Query(of_job("chainrule_training_loss")),
            decimals=4,
        ),
        number(
            "Validation loss",
            "Mean over the held-out rows after the newest epoch.",
            Query(of_job("chainrule_validation_loss")),
            decimals=4,
            absent="no held-out rows",
        ),
        number(
            "Rows a second",
            "Training rows that went through the network, over the last minute.",
            Query(of_job("job_id:chainrule_samples:rate1m")),
            decimals=0,
        ),
        number(
            "Workers",
            "Workers that are ready or at work for this job.",
            Query(of_job("chainrule_job_workers")),
            thresholds=((None, "red"), (1, "text")),
            runbook="job-without-workers",
        ),
        number(
            "Found wrong",
            "Diagnoses that hold now; below stands which, and `chainrule jobs show` says why and what to do.",
            Query(f"sum({of_job('chainrule_diagnosis')})"),
            thresholds=((None, "green"), (1, "red")),
        ),
    ],
    "How it learns": [
        graph(
            "Loss",
            "Training falls as the network learns; validation should follow it. Where validation turns up again, the"
            " network begins to learn its training rows by heart.",
            Query(of_job("chainrule_training_loss"), "training, newest step"),
            Query(of_job("chainrule_validation_loss"), "validation"),
            span=12,
            runbook="job-overfits",
        ),
        graph(
            "Scores",
            "Of the held-out rows after the newest epoch: accuracy, F1 and so on for classes, RMSE, R2 and so on for"
            " numbers. Of the training rows, accuracy alone, taken step by step.",
            Query(of_job("chainrule_validation_score"), "{{score}}, validation"),
            Query(of_job("chainrule_training_score"), "{{score}}, training"),
            span=6,
        ),
        graph(
            "Learning rate",
            "Of the newest step, as the schedule says, and halved by every roll-back.",
            Query(of_job("chainrule_learning_rate"), "learning rate"),
            span=6,
        ),
        timeline(
            "Diagnoses",
            "What is wrong with the training, as the coordinator finds it in the job's events. `chainrule jobs show`"
            " has the figures that show it, and advice.",
            Query(of_job("chainrule_diagnosis"), "{{diagnosis}}"),
            words={"0": ("not found", "transparent"), "1": ("found", "red")},
        ),
    ],
    "Anatomy of a step": [
        graph(
            "Where a step's time goes",
            "Seconds of the mean step by phase, stacked. split to optimizer add up to the step; validate and checkpoint"
            " happen now and then, and are spread over all steps. Much wait: the workers are slow or too few. Much"
            " gather or average: the network is large beside its batches.",
            Query(of_job("job_id_phase:chainrule_step_phase_seconds:mean1m"), "{{phase}}"),
            unit="s",
            span=12,
            stacked=True,
        ),
        graph(
            "Seconds a step",
            "The middle step, and the one that is slower than 95 of 100, over five minutes. As fine as the histogram's"
            " buckets.",
            Query(of_job("job_id:chainrule_step_seconds:p50_5m"), "50 of 100"),
            Query(of_job("job_id:chainrule_step_seconds:p95_5m"), "95 of 100"),
            unit="s",
            span=6,
            runbook="steps-slow",
        ),
        graph(
            "Steps a second",
            "Over the last minute. None while the job runs means that it is stalled.",
            Query(of_job("job_id:chainrule_steps:rate1m"), "steps"),
            unit="ops",
            span=6,
            runbook="job-stalled",
        ),
        distribution(
            "Steps by their seconds",
            "The darker, the more steps took so long. A second band above the first is a worker or a disk that is slow"
            " now and then.",
            Query(f"sum by (le) (increase({of_job('chainrule_step_seconds_bucket')}[$__rate_interval]))", "{{le}}"),
        ),
        graph(
            "Bytes exchanged",
            "Parameters out and gradients back, between the trainer and its workers.",
            Query(f"rate({of_job('chainrule_exchange_bytes_total')}[$__rate_interval])", "exchanged"),
            unit="Bps",
            span=12,
        ),
    ],
    "Layers": [
        rows_of_colour(
            "Gradient norm by layer",
            "A row for each layer, coloured by the power of ten of its gradient's length: -3 is 0.001. Rows should have"
            " about one colour; a fall of many powers from the last layers to the first is a vanishing gradient.",
            Query(f"log10(clamp_min({of_job('chainrule_layer_gradient_norm')}, 1e-12))", "{{layer}}"),
            runbook="gradient-vanishes",
        ),
        graph(
            "Gradient norm",
            "Length of the mean gradient over all parameters, before clipping. On a logarithmic axis.",
            Query(of_job("chainrule_gradient_norm"), "gradient"),
            span=12,
            logarithmic=True,
            runbook="gradient-explodes",
        ),
        graph(
            "Update beside parameters",
            "How far a step moves a layer, by the length of its parameters. About 0.001 is usual; above 0.01 the"
            " learning rate is likely too high, below 0.0001 too low.",
            by_layer("chainrule_layer_update_ratio"),
            logarithmic=True,
            thresholds=((None, "blue"), (1e-4, "green"), (1e-2, "red")),
        ),
        graph(
            "Dead units",
            "Share of a layer's units (relu) that were 0 for all rows of the batch, and so learn nothing from it.",
            by_layer("chainrule_layer_dead_ratio"),
            unit="percentunit",
            most=1,
            thresholds=((None, "green"), (0.5, "red")),
        ),
        graph(
            "Saturated outputs",
            "Share of a layer's outputs (sigmoid, tanh) where the curve is flat, so that little gradient passes.",
            by_layer("chainrule_layer_saturated_ratio"),
            unit="percentunit",
            most=1,
            thresholds=((None, "green"), (0.5, "red")),
        ),
        graph(
            "Parameter norm",
            "Length of a layer's parameters. One that grows without end asks for weight decay or a lower rate.",
            by_layer("chainrule_layer_parameter_norm"),
            logarithmic=True,
        ),
        graph(
            "Mean of outputs",
            "Over all rows of a batch. Far from 0, the layers behind it have to shift it back.",
            by_layer("chainrule_layer_output_mean"),
        ),
        graph(
            "Spread of outputs",
            "Standard deviation over all rows of a batch. Shrinking from layer to layer, the signal gets lost; growing,"
            " it overflows.",
            by_layer("chainrule_layer_output_deviation"),
            logarithmic=True,
        ),
    ],
    "Workers": [
        graph(
            "Time that workers compute",
            "Share of the time that each worker spends on gradients. The rest it waits, for the others or the trainer.",
            Query(f"rate({of_job('chainrule_worker_compute_seconds_total')}[$__rate_interval])", "worker {{worker}}"),
            unit="percentunit",
        ),
        graph(
            "Stragglers",
            "How many times as long as the middle one the slowest worker takes for a shard. All wait for it.",
            Query(of_job("chainrule_straggler_ratio"), "slowest beside the middle"),
            thresholds=((None, "green"), (2, "red")),
        ),
        graph(
            "Workers at hand, by exchange",
            "Shared memory where a worker reaches it, which takes a fraction of a millisecond a step; Ray objects from"
            " other machines take tens.",
            Query(of_job("chainrule_exchange_workers"), "{{exchange}}"),
            stacked=True,
        ),
        graph(
            "Workers lost, by cause",
            "In the interval of a bar. A lost worker costs its step a recomputation, and nothing else.",
            Query(f"increase({of_job('chainrule_worker_failures_total')}[$__rate_interval])", "{{cause}}"),
            stacked=True,
            bars=True,
            runbook="workers-fail",
        ),
        number(
            "Mean time to recover",
            "From a worker's loss to its return, over all that is shown; 0 if none was lost.",
            Query(
                f"sum(increase({of_job('chainrule_recovery_seconds_sum')}[$__range]))"
                f" / clamp_min(sum(increase({of_job('chainrule_recovery_seconds_count')}[$__range])), 1)"
            ),
            unit="s",
            span=8,
        ),
        number(
            "Roll-backs",
            "How often the job diverged and went back to the start of its epoch, with half the learning rate.",
            Query(of_job("chainrule_rollbacks_total")),
            span=8,
            thresholds=((None, "green"), (1, "red")),
            runbook="training-diverges",
        ),
    ],
    "Checkpoints": [
        graph(
            "Age of the newest checkpoint",
            "How much work a crash would cost now.",
            Query(of_job("chainrule_checkpoint_age_seconds"), "age"),
            unit="s",
            thresholds=((None, "green"), (900, "red")),
            runbook="checkpoint-too-old",
        ),
        graph(
            "Size of the newest checkpoint",
            "Parameters, the optimizer's state, and what else the job needs to go on as if it had never stopped.",
            Query(of_job("chainrule_checkpoint_bytes"), "bytes"),
            unit="bytes",
        ),
        graph(
            "Seconds to write a checkpoint",
            "Mean of those written in the interval; 0 if none was. Steps wait meanwhile.",
            Query(
                f"""rate({of_job("chainrule_step_phase_seconds_sum", 'phase="checkpoint"')}[$__rate_interval])"""
                f""" / clamp_min(rate({of_job("chainrule_step_phase_seconds_count", 'phase="checkpoint"')}"""
                "[$__rate_interval]), 1e-9)",
                "written",
            ),
            unit="s",
        ),
    ],
}
