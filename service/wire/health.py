"""How the layers of a job fare, and what is wrong with its training, as clients see it."""

from chainrule.v1 import training_health_pb2 as pb
from service.jobs.health import Diagnosis, HealthSampled, Recovered


def health_message(health: HealthSampled) -> pb.HealthSampled:
    """The message for a look at the layers."""
    return pb.HealthSampled(
        step=health.step,
        gradient_norm=health.gradient_norm,
        straggler_ratio=health.straggler_ratio,
        layers=[
            pb.LayerHealth(
                layer=layer.layer,
                kind=layer.kind,
                gradient_norm=layer.gradient_norm,
                parameter_norm=layer.parameter_norm,
                update_ratio=layer.update_ratio,
                dead_ratio=layer.dead_ratio,
                saturated_ratio=layer.saturated_ratio,
                output_mean=layer.output_mean,
                output_deviation=layer.output_deviation,
            )
            for layer in health.layers
        ],
    )


def diagnosis_message(diagnosis: Diagnosis) -> pb.Diagnosis:
    """The message for a diagnosis."""
    return pb.Diagnosis(
        trouble=pb.Diagnosis.Trouble.Value(diagnosis.trouble),
        step=diagnosis.step,
        layer=diagnosis.layer,
        evidence=diagnosis.evidence,
        advice=diagnosis.advice,
    )


def recovered_message(recovered: Recovered) -> pb.Recovered:
    """The message for a trouble that is over."""
    return pb.Recovered(trouble=pb.Diagnosis.Trouble.Value(recovered.trouble), step=recovered.step)
