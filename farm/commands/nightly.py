"""The nightly: a run that is compared with a baseline, or says that there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farm import paths
from farm.core.errors import ConfigError
from farm.core.rules.verdict import NIGHTLY_SHARE
from farm.planning.planning import RunOptions, load
from farm.run.baselines import find_baseline


def nightly_options(options: RunOptions, home: Path, *, allow_no_baseline: bool) -> RunOptions:
    """Choose the baseline of a nightly: the one named, else the one named like the config.

    What the config doesn't require itself is required as of a nightly: 90 % of the cells, and of
    the speeds on which a gate stands.

    Raises:
        ConfigError: The config is wrong, or there is no baseline and that isn't allowed.
    """
    options = replace(options, require=NIGHTLY_SHARE)
    name = options.baseline or load(options).spec.name
    if find_baseline(paths.baselines(home), name) is not None:
        return replace(options, baseline=name)
    if allow_no_baseline and options.baseline is None:
        return options
    raise ConfigError(
        f"no baseline {name!r} to compare with. The first night: `farm nightly {options.config}"
        f" --allow-no-baseline`, then `farm baseline set latest {name}`"
    )
