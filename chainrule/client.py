"""The client: every call of the service as a plain method, with a deadline, in this process's own thread.

It adds to the generated stubs what every caller would otherwise write again: pages become iterators, a watch survives
a restart of the coordinator, files are cut into chunks and checked, errors are Python's. What comes back are the
contract's own messages.
"""

from chainrule.datasets import DatasetCalls
from chainrule.jobs import JobCalls
from chainrule.models import ModelCalls


class Client(JobCalls, DatasetCalls, ModelCalls):
    """A connection to a coordinator. Use it in a ``with`` block; it may be shared by threads.

        with Client("127.0.0.1:50051") as client:
            job = client.wait(client.create_job(spec).name)

    Names are accepted as bare ids (``"x"``) or in full (``"jobs/x"``); of a model also an alias (``"@production"``).
    Every method raises a `chainrule.errors.ServiceError`: `Unavailable` if nobody answers at the address,
    `DeadlineExceeded` if there is no answer in time, `NotFound` for a name that does not exist, and what else its
    docstring says.
    """
