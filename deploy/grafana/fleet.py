"""What a coordinator does: its jobs, its queue, its workers, its callers and its disk."""

from deploy.grafana.panels import Column, Query, graph, number, table

JOB_URL = "/d/chainrule-job?var-job_id=${__value.text}&${__url_time_range}&${datasource:queryparam}"

ROWS = {
    "Now": [
        number(
            "Coordinators up",
            "Those that answered the newest scrape.",
            Query('sum(up{job="chainrule"})'),
            thresholds=((None, "red"), (1, "green")),
            runbook="coordinator-down",
        ),
        number(
            "Alerts",
            "Alerts of Chainrule that fire. They are marked in the graphs, and the runbooks say what to do.",
            Query('count(ALERTS{alertname=~"Chainrule.*", alertstate="firing"}) or vector(0)'),
            thresholds=((None, "green"), (1, "red")),
        ),
        number(
            "Jobs at work",
            "Jobs that take steps.",
            Query('sum(chainrule_jobs{state="running"})'),
        ),
        number(
            "Jobs in the queue",
            "Jobs that wait for their turn.",
            Query("sum(chainrule_queue_jobs)"),
            runbook="queue-too-long",
        ),
        number(
            "Rows a second",
            "Training rows of all jobs, over the last minute.",
            Query("chainrule:samples:rate1m"),
            decimals=0,
        ),
        number(
            "Workers lost",
            "Workers that died or were given up on, and are not back.",
            Query('sum(chainrule_workers{state="lost"})'),
            thresholds=((None, "green"), (1, "red")),
            runbook="workers-missing",
        ),
        number(
            "Errors of the server",
            "The share of answers of the worst service that are the server's fault, over five minutes.",
            Query("max(grpc_service:grpc_server_faults:ratio_rate5m)"),
            unit="percentunit",
            decimals=1,
            thresholds=((None, "green"), (0.01, "orange"), (0.05, "red")),
            runbook="api-fails",
        ),
        number(
            "Disk free",
            "Of the file system with the data directory.",
            Query("min(chainrule_disk_free_bytes / chainrule_disk_size_bytes)"),
            unit="percentunit",
            decimals=1,
            thresholds=((None, "red"), (0.1, "orange"), (0.2, "green")),
            runbook="disk-nearly-full",
        ),
    ],
    "Jobs": [
        table(
            "Jobs",
            "Jobs that run, and those that ended not long ago. The id leads to the job's dashboard.",
            Query("max by (job_id, display_name, state) (chainrule_job_info)"),
            Query("sum by (job_id) (chainrule_steps_total) / sum by (job_id) (chainrule_steps_expected)"),
            Query("max by (job_id) (chainrule_remaining_seconds)"),
            Query("max by (job_id) (chainrule_training_loss)"),
            Query("sum by (job_id) (chainrule_job_workers)"),
            Query("sum by (job_id) (chainrule_diagnosis)"),
            columns={
                "job_id": Column("Job", "string", JOB_URL),
                "display_name": Column("Name", "string"),
                "state": Column("State", "string"),
                "Value #B": Column("Progress", "percentunit"),
                "Value #C": Column("Time left", "s"),
                "Value #D": Column("Training loss"),
                "Value #E": Column("Workers"),
                "Value #F": Column("Found wrong"),
            },
        ),
        graph(
            "Jobs by state",
            "All that the coordinator knows, until they are deleted.",
            Query("sum by (state) (chainrule_jobs)", "{{state}}"),
            stacked=True,
        ),
        graph(
            "Queue",
            "How many jobs wait for their turn.",
            Query("sum(chainrule_queue_jobs)", "jobs"),
        ),
        graph(
            "Longest wait, by reason",
            "How long the job has waited that waits longest. Alerts after half an hour, but for jobs that were paused.",
            Query("max by (reason) (chainrule_queue_wait_seconds)", "{{reason}}"),
            unit="s",
            thresholds=((None, "green"), (1800, "red")),
            runbook="queue-too-long",
        ),
    ],
    "Workers": [
        graph(
            "Workers by state",
            "busy: lent to a job. free: warm, for the next one. lost: died, and not back yet.",
            Query("sum by (state) (chainrule_workers)", "{{state}}"),
            stacked=True,
            runbook="workers-missing",
        ),
        graph(
            "Workers lost, by cause",
            "In the interval of a bar, over all jobs.",
            Query(
                "sum by (cause) (increase(chainrule_worker_failures_total[$__rate_interval])) or vector(0)", "{{cause}}"
            ),
            stacked=True,
            bars=True,
            runbook="workers-fail",
        ),
        graph(
            "Mean time to recover",
            "From a worker's loss to its return; 0 if none was lost.",
            Query(
                "(sum(increase(chainrule_recovery_seconds_sum[$__rate_interval]))"
                " / clamp_min(sum(increase(chainrule_recovery_seconds_count[$__rate_interval])), 1)) or vector(0)",
                "recovery",
            ),
            unit="s",
        ),
    ],
    "Throughput": [
        graph(
            "Rows a second, by job",
            "Training rows that went through a job's network.",
            Query("job_id:chainrule_samples:rate1m", "{{job_id}}"),
            stacked=True,
        ),
        graph(
            "Steps a second, by job",
            "Updates of a job's parameters.",
            Query("job_id:chainrule_steps:rate1m", "{{job_id}}"),
            unit="ops",
        ),
        graph(
            "Bytes exchanged, by job",
            "Parameters out and gradients back.",
            Query("sum by (job_id) (rate(chainrule_exchange_bytes_total[$__rate_interval]))", "{{job_id}}"),
            unit="Bps",
        ),
    ],
    "Callers": [
        graph(
            "Calls by method",
            "Calls that began, of the eight methods that are called most.",
            Query(
                "topk(8, sum by (grpc_method) (rate(grpc_server_started_total[$__rate_interval])))", "{{grpc_method}}"
            ),
            unit="reqps",
        ),
        graph(
            "Answers by code",
            "The five codes that calls end with most: OK, what clients did wrong (InvalidArgument, NotFound and so on),"
            " what the server did (Internal, Unknown, Unavailable, DeadlineExceeded, DataLoss).",
            Query("topk(5, sum by (grpc_code) (rate(grpc_server_handled_total[$__rate_interval])))", "{{grpc_code}}"),
            unit="reqps",
            stacked=True,
        ),
        graph(
            "Errors of the server, by service",
            "The share of a service's answers that are the server's fault. Alerts above 5 %.",
            Query("grpc_service:grpc_server_faults:ratio_rate5m", "{{grpc_service}}"),
            unit="percentunit",
            thresholds=((None, "green"), (0.05, "red")),
            runbook="api-fails",
        ),
        graph(
            "Seconds a call, by method",
            "The call that is slower than 95 of 100, over five minutes; calls with streams, which last as long as their"
            " caller likes, are left out.",
            Query("grpc_method:grpc_server_handling_seconds:p95_5m", "{{grpc_method}}"),
            unit="s",
        ),
        graph(
            "Messages",
            "Those of streams, too: events to those who watch, and the chunks of uploads.",
            Query("sum(rate(grpc_server_msg_received_total[$__rate_interval]))", "received"),
            Query("sum(rate(grpc_server_msg_sent_total[$__rate_interval]))", "sent"),
            unit="short",
        ),
        graph(
            "Predictions by outcome",
            "Requests for predictions.",
            Query("sum by (outcome) (rate(chainrule_predictions_total[$__rate_interval]))", "{{outcome}}"),
            unit="reqps",
            stacked=True,
        ),
        graph(
            "Rows predicted",
            "Rows a second, over all models.",
            Query("sum(rate(chainrule_prediction_rows_total[$__rate_interval]))", "rows"),
        ),
        graph(
            "Seconds a prediction",
            "Mean time from a request to its answer; 0 if there was none.",
            Query(
                "sum(rate(chainrule_prediction_seconds_sum[$__rate_interval]))"
                " / clamp_min(sum(rate(chainrule_prediction_seconds_count[$__rate_interval])), 1e-9)",
                "mean",
            ),
            unit="s",
        ),
        graph(
            "Models at hand",
            "Memory of the models that are kept to predict with.",
            Query("sum(chainrule_model_cache_bytes)", "bytes"),
            unit="bytes",
        ),
    ],
    "The coordinator's machine": [
        graph(
            "Bytes free on the disk",
            "Of the file system with the data directory. Jobs stop at a checkpoint that can't be written.",
            Query("chainrule_disk_free_bytes", "{{instance}}"),
            unit="bytes",
            runbook="disk-nearly-full",
        ),
        graph(
            "Datasets and models",
            "What they take on the disk.",
            Query("sum(chainrule_dataset_bytes)", "datasets"),
            Query("sum(chainrule_model_bytes)", "models"),
            unit="bytes",
            stacked=True,
        ),
        graph(
            "Memory of the coordinator",
            "Of its process alone: workers and trainers are others.",
            Query('process_resident_memory_bytes{job="chainrule"}', "{{instance}}"),
            unit="bytes",
        ),
        graph(
            "Processor time of the coordinator",
            "Cores that its process keeps busy.",
            Query('rate(process_cpu_seconds_total{job="chainrule"}[$__rate_interval])', "{{instance}}"),
        ),
        graph(
            "Open files of the coordinator",
            "Beside how many it may open.",
            Query('process_open_fds{job="chainrule"}', "open"),
            Query('process_max_fds{job="chainrule"}', "at most"),
            logarithmic=True,
        ),
        table(
            "What runs",
            "Versions, by the coordinator.",
            Query("max by (instance, version, python, numpy, ray) (chainrule_build_info)"),
            columns={
                "instance": Column("Coordinator", "string"),
                "version": Column("Chainrule", "string"),
                "python": Column("Python", "string"),
                "numpy": Column("NumPy", "string"),
                "ray": Column("Ray", "string"),
            },
            span=8,
        ),
    ],
}
