"""The same selection in virtual time: the limits, and a quick look at all of the grid."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.network.model_cache import Library, Minds, Opening
from bench.network.profiles import PROFILES
from bench.network.rows import AUTO, CLOUD, EDGE, NAIVE, Cell, Key, Row, Texts, append_row, load_rows, prepare_file
from bench.network.runner import Selection, Show
from bench.network.texts import Prompts, row_of, sampling_of
from bench.network.virtual import Virtual, VirtualLink, VirtualText
from skydraft.core import Objective
from skydraft.policies.planner import Planner
from skydraft.policies.way import FREE, Way, parse_way

ORACLE = "oracle "  # before the mode of which it is the limit
LOCATED = "co-located"  # the draft stands beside the target, and the text is streamed over the link
COST = "cost"  # skydraft with objective cost
OFFERS = tuple(f"offer:{least:g}" for least in (0.005, 0.02, 0.1, 0.4))  # nodes as probable

LIMIT_OF = {AUTO: "free"}  # an oracle need not choose: it never drafts in vain

FRONTIER_MODES = (CLOUD, AUTO, COST, "wait:4", "prepared:4", "tree", *OFFERS)


def virtual_modes(modes: Sequence[str]) -> list[str]:
    """What is simulated for the modes of a selection: these, their limits, and what needs no socket."""
    drafted = [mode for mode in modes if mode not in (CLOUD, EDGE, NAIVE)]
    return [*(mode for mode in modes if mode != NAIVE), *(ORACLE + mode for mode in drafted), LOCATED]


@dataclass
class Grid:
    """Simulates texts; what a device learnt of a cell in one run serves the next, as in real runs."""

    library: Library = field(default_factory=Library)
    prompts: Prompts = field(default_factory=Prompts)
    _planners: dict[tuple[Cell, str], Planner] = field(default_factory=dict)

    def rows(self, keys: Sequence[Key]) -> Iterator[Row]:
        """Of keys of any cells; those that share a text are written one after the other."""
        texts: dict[tuple[str, float, int, int], list[Key]] = {}
        for key in sorted(keys, key=lambda key: key.run):
            texts.setdefault((key.cell.draft, key.cell.temperature, key.run, key.tokens), []).append(key)
        for (draft, *_), of_text in texts.items():
            opening = Opening(self.prompts[of_text[0].run], sampling_of(of_text[0]))
            minds = self.library.minds(draft, opening)
            for key in of_text:
                yield self._row(key, minds)
            minds.close()

    def _row(self, key: Key, minds: Minds) -> Row:
        if key.mode == EDGE:
            return self._edge_row(key, minds)
        cell, profile = key.cell, PROFILES[key.cell.profile]
        round_trip_s = cell.round_trip_ms / 1000
        link = VirtualLink(0.0 if key.mode == LOCATED else round_trip_s, cell.rate_mbps)
        mode = key.mode.removeprefix(ORACLE)
        is_oracle = key.mode != mode
        planner = self._planners.setdefault(
            (cell, key.mode), planner_of(LIMIT_OF.get(mode, mode) if is_oracle else mode)
        )
        text = VirtualText(minds, profile.sides, link, planner, mode != CLOUD, is_oracle).run()
        # Its first token comes a connection and a request later, and so do all others: the stream needs no answers.
        later_s = 3 * round_trip_s if key.mode == LOCATED else 0.0
        return self._make(key, text, later_s, planner)

    def _make(self, key: Key, text: Virtual, later_s: float, planner: Planner) -> Row:
        laps_s = text.stopwatch.laps_s
        return row_of(
            key,
            self.prompts,
            text.token_ids,
            seconds=text.times_s[-1] + later_s,
            first_token_s=text.times_s[0] + later_s,
            num_first=text.counts[0],
            rounds=text.rounds,
            positions=text.num_positions,
            up=dict(text.record.up),
            down=dict(text.record.down),
            kind="virtual",
            policy_us=statistics.median(laps_s) * 1e6 if laps_s else None,
            run_length=planner.conditions().run_length,
        )

    def _edge_row(self, key: Key, minds: Minds) -> Row:
        """The draft alone: the prompt, whose logits give the first token, and a step for each other."""
        path: tuple[int, ...] = ()
        while len(path) < key.tokens:
            path = (*path, minds.guesses(path, 1).token_ids[0])
        pace = PROFILES[key.cell.profile].draft_pace
        first_s = pace.pass_s(0, len(minds.opening.prompt_ids))
        return row_of(
            key,
            self.prompts,
            path,
            seconds=first_s + (key.tokens - 1) * pace.pass_s(1),
            first_token_s=first_s,
            num_first=1,
            rounds=0,
            positions=0,
            up={},
            down={},
            kind="virtual",
        )


def planner_of(mode: str) -> Planner:
    """Of a mode's name, those of the frontier included."""
    if mode == COST:
        return Planner(Objective.COST)
    if mode in OFFERS:
        return Planner(fixed=_offering(float(mode.removeprefix("offer:"))))
    return Planner(fixed=None if mode in (AUTO, CLOUD, LOCATED) else parse_way(mode))


def _offering(least_prob: float) -> Way:
    return replace(FREE, least_offer_prob=least_prob, least_gain=least_prob)


def simulate(selection: Selection, out: Path, show: Show) -> list[Row]:
    """Simulate what the file lacks.

    Returns:
        All rows of the file.
    Raises:
        TextsDiffer, ConfigError: as `run_selection`.
    """
    prepare_file(out)
    rows, texts = load_rows(out), Texts()
    done = {row.key for row in rows}
    keys = [key for key in _keys(selection) if key not in done]
    show(f"{len(keys)} texts to simulate, {len(rows)} are in {out}")
    for count, row in enumerate(Grid().rows(keys), start=1):
        texts.check(row)
        append_row(out, row)
        rows.append(row)
        if count % 100 == 0:
            show(f"{count} of {len(keys)} texts are simulated")
    return rows


def _keys(selection: Selection) -> Iterator[Key]:
    modes = virtual_modes(selection.modes)
    for profile in selection.profiles:
        for cell in selection.cells(profile):
            is_frontier = cell.round_trip_ms == 50
            for mode in dict.fromkeys([*modes, *(FRONTIER_MODES if is_frontier else ())]):
                for run in range(selection.num_runs):
                    yield Key(cell, mode, run, selection.num_tokens)
