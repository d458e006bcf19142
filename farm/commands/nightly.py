"""The nightly: a run that is compared with a baseline, or says that there is none, and tells it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from farm import paths
from farm.core.errors import ConfigError, FarmError
from farm.core.rules.verdict import NIGHTLY_SHARE
from farm.host import webhook
from farm.planning.planning import RunOptions, load
from farm.reports import notice
from farm.reports.notice import Notice
from farm.run.baselines import find_baseline
from farm.run.run import Finished
from farm.run.run_folder import write_text

log = logging.getLogger(__name__)

#: Exit code of a defect of farm.
_DEFECT = 70


@dataclass(frozen=True, slots=True)
class Told:
    """Where a nightly tells how it ended."""

    #: Address that a Slack-compatible message is posted to; empty: none.
    webhook: str = ""
    #: File that the mail's text is written to, subject first.
    mail: Path | None = None

    def check(self) -> None:
        """Refuse before the night what can't be told after it.

        Raises:
            ConfigError: The address is none, or the folder of the file isn't there.
        """
        if self.webhook:
            webhook.check(self.webhook)
        if self.mail is not None and not self.mail.resolve().parent.is_dir():
            raise ConfigError(f"--mail {self.mail}: there is no folder {self.mail.parent}")

    def tell(self, message: Notice) -> None:
        """Tell a message everywhere; what can't be told is a warning, each."""
        if self.mail is not None:
            _try(lambda path=self.mail: write_text(path, message.mail))  # type: ignore[misc]
        if self.webhook:
            _try(lambda: webhook.post(self.webhook, message.webhook))


def _try(tell: Callable[[], None]) -> None:
    try:
        tell()
    except FarmError as error:
        log.warning("the night was not told: %s", error)


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


def told_night(run: Callable[[], Finished], told: Told, config: str) -> Finished:
    """Run a night and tell how it ended: by its own report, never by one that was there before.

    Raises:
        FarmError: It could not begin; that is told too, as is a defect of farm.
    """
    told.check()
    try:
        finished = run()
    except FarmError as error:
        told.tell(notice.of_error(config, str(error), error.exit_code))
        raise
    except Exception as error:  # goes on to the last fence, which keeps the traceback
        what = f"a defect of farm itself: {type(error).__name__}: {error}"
        told.tell(notice.of_error(config, what, _DEFECT))
        raise
    told.tell(notice.of_run(finished.report, finished.folder))
    return finished


def told_deployment(
    deploy: Callable[[], tuple[int, str]], told: Told, finished: Finished
) -> tuple[int, str]:
    """Deploy after a night that was told as passed; what goes wrong is told again.

    Args:
        deploy: Gives the exit code and the last line.
        told: Where.
        finished: The night.

    Raises:
        FarmError: It could not begin, or was interrupted; that is told too, as is a defect of farm.
    """

    def failed(code: int, line: str) -> None:
        told.tell(notice.of_deployment(finished.report, finished.folder, code, line))

    try:
        code, line = deploy()
    except FarmError as error:
        failed(error.exit_code, str(error))
        raise
    except Exception as error:  # goes on to the last fence, which keeps the traceback
        failed(_DEFECT, f"a defect of farm itself: {type(error).__name__}: {error}")
        raise
    if code:
        failed(code, line)
    return code, line
