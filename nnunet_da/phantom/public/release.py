"""What the phantom knows of a public dataset, and the writing of its folder."""

import contextlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, atomic_folder, require_free_space
from nnunet_da.parallel import run_parallel
from nnunet_da.phantom.scanner import Scanner, simulate
from nnunet_da.phantom.study import require_new, require_size


@dataclass(frozen=True)
class Part:
    """Cases of one kind, with consecutive numbers.

    scanners: those that take each subject, one per series; first: number of the first case; share: how many cases
    there are per `n` that the user asks for (at least one).
    """

    name: str
    scanners: tuple[Scanner, ...]
    first: int = 1
    share: float = 1.0

    def numbers(self, n):
        return range(self.first, self.first + max(1, round(n * self.share)))


@dataclass(frozen=True)
class Aside:
    """Files that the release does not hold, written elsewhere on request: to a folder, or to one file."""

    option: str
    help: str
    is_folder: bool = True


HIDDEN_LABELS = Aside("--hidden-labels", "labels of the cases that the release gives without")


@dataclass(frozen=True)
class Release:
    """A public dataset.

    name: of its converter; n: what the user's number counts; labels: the values and what they mean; write: writes the
    files of a Case, and returns what `finish` needs of it; finish(folder, results, aside): writes the files about all
    cases; scale: see `scaled`, the default; n_max: how many fit the numbering; to_convert: what stands behind the
    folder in the command that converts it.
    """

    name: str
    anatomy: str
    n: str
    labels: str
    parts: tuple[Part, ...]
    write: Callable
    finish: Callable | None = None
    scale: float = 1.0
    n_max: int | None = None
    aside: Aside | None = None
    to_convert: str = ""

    def cases(self, n):
        """(part, number) of every case."""
        return [(part, number) for part in self.parts for number in part.numbers(n)]

    def n_bytes(self, n, size=None, scale=None):
        """Room on disk for `n`, uncompressed: 16 bits a voxel for each image and its labels."""
        scale = scale or self.scale
        return sum(
            2 * len(part.numbers(n)) * (len(scanner.channels) + 1) * math.prod(size or voxels(scaled(scanner, scale)))
            for part in self.parts
            for scanner in part.scanners
        )


@dataclass(frozen=True)
class Case:
    """One subject of a release, about to be simulated and written to `folder`.

    Everything random in it depends on the seed, the names of release and part, its number, and a purpose.
    """

    release: str
    part: str
    number: int
    seed: int
    folder: Path
    aside: Path | None = None
    size: tuple[int, int, int] | None = None
    scale: float = 1.0

    def rng(self, purpose):
        """A numpy generator for one purpose."""
        words = [zlib.crc32(word.encode()) for word in (self.release, self.part, purpose)]
        return np.random.default_rng([self.seed, *words, self.number])

    def subject(self, body):
        """The subject, of a class such as Spine."""
        return body.sample(self.rng("subject"))

    def scan(self, subject, scanner, series=""):
        """A Scan of the subject; `series` tells several by the same scanner apart."""
        rng = self.rng(f"scan {scanner.name} {series}")
        return simulate(subject, scaled(scanner, self.scale), rng, self.size)


def describe(release):
    """What the command line lists of a release: lines of text."""
    scanners = {scanner.name: scanner for part in release.parts for scanner in part.scanners}
    grids = [
        f"{scanner.name} {_by(voxels(scaled(scanner, release.scale)))}"
        + (f" (with --scale 1: {_by(voxels(scanner))})" if release.scale < 1 else "")
        for scanner in scanners.values()
    ]
    lines = [
        release.anatomy,
        f"-n: {release.n}",
        f"labels: {release.labels}",
        f"voxels along R, A, S: {'; '.join(grids)}",
    ]
    if release.aside:
        lines.append(f"{release.aside.option}: {release.aside.help}")
    return "\n    ".join([release.name, *lines])


def _by(numbers):
    return " × ".join(map(str, numbers))


def scaled(scanner, scale):
    """The scanner with no voxel side under 1/scale of its finest: 0.5 halves the resolution in plane, slices stay.

    scale: above 0, at most 1.
    """
    finest = min(scanner.spacing) / scale
    return replace(scanner, spacing=tuple(max(side, finest) for side in scanner.spacing))


def voxels(scanner):
    """Voxels of the scanner's grid along R, A, S."""
    return tuple(round(extent / side) for extent, side in zip(scanner.field_of_view, scanner.spacing, strict=True))


def write_release(release, folder, n, seed=0, *, size=None, scale=None, aside=None, n_processes=None):
    """Simulates the cases of a Release and writes them to `folder` in the release's layout.

    n: see Release.n; size: voxels along R, A, S of every scan, over the scanners' own fields of view; scale: see
    `scaled` (None: the release's default); aside: where to write the release's Aside (None: nowhere).

    A case depends on `seed`, the release and its number alone. Raises UserError for numbers out of range, a folder
    that holds something, or a disk that is too full; `folder` is complete or absent.
    """
    folder, aside = Path(folder), Path(aside) if aside else None
    _check(release, folder, n, seed, size, scale, aside)
    require_free_space(folder, release.n_bytes(n, size, scale), f"{release.name} with -n {n}")
    with contextlib.ExitStack() as stack:
        temporary_aside = None
        if aside:
            temporary_aside = stack.enter_context((atomic_folder if release.aside.is_folder else atomic_file)(aside))
        temporary = stack.enter_context(atomic_folder(folder))
        cases = [
            Case(release.name, part.name, number, seed, temporary, temporary_aside, size, scale or release.scale)
            for part, number in release.cases(n)
        ]
        results = run_parallel(_write_case, cases, n_processes, f"Simulating {release.name}")
        if release.finish:
            release.finish(temporary, results, temporary_aside)


def _write_case(case):
    # A release holds functions, which do not travel to a worker process; its name does.
    from nnunet_da.phantom.public import RELEASES

    return RELEASES[case.release].write(case)


def _check(release, folder, n, seed, size, scale, aside):
    if n < 1 or n > (release.n_max or n):
        upper = f" to {release.n_max}" if release.n_max else " or more"
        raise UserError(f"-n {n}: {release.name} takes 1{upper} ({release.n})")
    if seed < 0:
        raise UserError(f"--seed {seed}: must not be negative")
    if scale is not None and not 0 < scale <= 1:
        raise UserError(f"--scale {scale:g}: must be above 0 and at most 1, the release's own resolution")
    require_size(size)
    require_new(folder)
    if aside is None:
        return
    if aside.exists() and (aside.is_file() or not release.aside.is_folder):
        raise UserError(f"{aside}: exists already")
    require_new(aside)
    for inner, outer in ((aside, folder), (folder, aside)):
        if inner.resolve().is_relative_to(outer.resolve()):
            raise UserError(f"{aside}: must lie outside {folder}, whose layout is the release's own")
