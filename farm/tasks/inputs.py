"""Which objects a host task reads: what has to be on the host that it runs on."""

from __future__ import annotations

from farm.core.artifact import ObjectRef
from farm.core.flow.chain import bundle_files
from farm.core.tasks import CompareTask, HostRunTask, HostTask
from farm.store.actions import object_refs


def inputs(task: HostTask) -> list[ObjectRef]:
    """Return the objects that a task may read, each once.

    Some are of no use to it, as the logs of a launch; none that it needs is left out.
    """
    found: list[ObjectRef] = []
    match task:
        case HostRunTask(bundle=bundle):
            found += [file.object for file in bundle_files(bundle)]
        case CompareTask(run=run):
            measured = (run.launches, run.canary, run.replay)
            made = (task.reference, task.host and task.host.logits, task.canary, task.export.replay)
            found += object_refs((measured, made, task.export.bundle.tokenizer))
    return list(dict.fromkeys(found))
