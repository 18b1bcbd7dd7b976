"""What an operator graph connects: its ends, and every path of operators between populations."""

from __future__ import annotations

from dataclasses import dataclass

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import Node, OpGraph, Port

# Paths multiply where branches meet again: these bound the work on graphs made to blow up.
_MOST_PATHS = 10_000
_MOST_STEPS = 200_000
_LONGEST_PATH = 256


@dataclass(frozen=True, slots=True)
class Path:
    """Operators on the way from population ``pre``, in order of the values' flow."""

    pre: str
    nodes: tuple[str, ...]


class Layout:
    """A graph's populations and paths.

    inputs: input nodes. posts: nodes that become populations with a fan-in: neurons, and outputs
    that are more than a name for a neuron's spikes. outputs: population read by each output node.
    paths: by post, in the order of the edges. findings: what is dead or left out, in words.
    """

    def __init__(self, graph: OpGraph) -> None:
        self._graph = graph
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self.after: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self._connect()
        self.findings: list[str] = []
        nodes = graph.nodes.values()
        self.inputs = [n for n in nodes if n.kind == "input"]
        self.outputs = self._read_by_outputs()
        self.posts = self._posts()
        self._steps = 0
        self.paths: dict[str, list[Path]] = {}
        for node in self.posts:
            self.paths[node.name] = self._paths(node.name)
        self._find_dead_ends()

    def _connect(self) -> None:
        kinds = {name: node.kind for name, node in self._graph.nodes.items()}
        seen: set[tuple[str, str]] = set()
        for edge in self._graph.edges:
            a, b = edge
            where = f"edge {a} -> {b}"
            for end in edge:
                if end not in kinds:
                    raise InputError(
                        f"an edge names {end!r}, which is not a node",
                        where=where,
                        hint="the file is malformed; export it again",
                    )
            if edge in seen:
                raise InputError(
                    "an edge occurs twice",
                    where=where,
                    hint="whether it counts twice is not defined: keep one, or put a Scale of 2 "
                    "into it",
                )
            if kinds[a] == "output":
                raise InputError(
                    "an edge leaves an output node",
                    where=where,
                    hint="start the edge at the node that the output reads",
                )
            if kinds[b] == "input":
                raise InputError(
                    "an edge ends in an input node",
                    where=where,
                    hint="end the edge at the node that the input feeds",
                )
            seen.add(edge)
            self.after[a].append(b)
            self.before[b].append(a)

    def _read_by_outputs(self) -> dict[str, str]:
        outputs: dict[str, str] = {}
        unfed: list[str] = []
        for node in self._graph.nodes.values():
            if node.kind != "output":
                continue
            if not self.before[node.name]:
                unfed.append(node.name)
                continue
            source = self._only_source(node.name)
            direct = node.name not in self._graph.populations and source is not None
            outputs[node.name] = source if direct and source is not None else node.name
        if unfed and not outputs:
            raise InputError(
                "nothing leads to the graph's output",
                where=unfed[0],
                hint="connect the last layer to the Output node",
            )
        self.findings += [f"output {name} reads nothing and is left out" for name in unfed]
        return outputs

    def _only_source(self, name: str) -> str | None:
        """Return the neuron whose spikes an output node reads as they are, or None."""
        sources = self.before[name]
        seen: set[str] = set()
        while len(sources) == 1 and sources[0] not in seen:
            node = self._graph.nodes[sources[0]]
            if node.kind == "neuron":
                return node.name
            if not isinstance(node.value, Port):
                return None
            seen.add(node.name)
            sources = self.before[node.name]
        return None

    def _posts(self) -> list[Node]:
        posts: list[Node] = []
        for node in self._graph.nodes.values():
            if node.kind == "neuron":
                if self.before[node.name] or self.after[node.name]:
                    posts.append(node)
                else:
                    self.findings.append(
                        f"node {node.name} is connected to nothing and is left out"
                    )
            elif self.outputs.get(node.name) == node.name:
                posts.append(node)
        return posts

    def _paths(self, post: str) -> list[Path]:
        found: list[Path] = []
        stack: list[tuple[str, tuple[str, ...]]] = [(b, ()) for b in reversed(self.before[post])]
        while stack:
            name, tail = stack.pop()
            node = self._graph.nodes[name]
            self._steps += len(tail) + 1
            if node.kind != "operator":
                found.append(Path(name, tail))
            elif name in tail:
                raise UnsupportedError(
                    "a loop of operators has no neuron in it",
                    where=" -> ".join((name, *tail)),
                    hint="put a neuron population into the loop",
                )
            else:
                stack += [(b, (name, *tail)) for b in reversed(self.before[name])]
            if len(found) > _MOST_PATHS or self._steps > _MOST_STEPS or len(tail) > _LONGEST_PATH:
                raise UnsupportedError(
                    "the operators between populations branch or chain without end",
                    where=post,
                    used=f"more than {_MOST_PATHS:,} paths, or more than {_LONGEST_PATH} operators "
                    "in one",
                    hint="put neurons between the operators, or multiply linear layers together",
                )
        return found

    def _find_dead_ends(self) -> None:
        used = {
            name
            for found in self.paths.values()
            for path in found
            for name in (path.pre, *path.nodes)
        }
        read = set(self.outputs.values()) | set(self.outputs)
        for node in self._graph.nodes.values():
            name = node.name
            if node.kind == "operator" and name not in used and not isinstance(node.value, Port):
                self.findings.append(f"node {name} leads nowhere and is left out")
            elif node.kind == "input" and name not in used:
                self.findings.append(f"input {name} feeds nothing")
            elif node.kind == "neuron" and name in self.paths:
                if not self.paths[name]:
                    self.findings.append(f"node {name} is fed by nothing")
                if name not in used and name not in read:
                    self.findings.append(f"node {name} leads to no output")
