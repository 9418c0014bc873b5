"""An instance that follows a node: what it runs, where the logs are, and what looks wrong with them."""

from pathlib import Path

from scripts import config as configuration
from scripts import instance, serve
from scripts.config import Config
from scripts.instance import Instance
from scripts.roles import Arguments
from scripts.supervisor import Plan, Programs

OURS = Programs(engine=("-m", "engine.follow"), simulation=("-m", "scripts.simulated_node"))
STREAMS = ("node_order_statuses", "node_raw_book_diffs", "node_fills")
FORMS = ("by_block", "streaming")


def run(config: Config, version: str, programs: Programs = OURS) -> int:
    """Run until a signal ends it; give the exit code (see cli). Raises instance.Busy, OSError."""
    return serve.run(config, version, lambda mine, port: plan(config, mine, port, programs))


def plan(config: Config, mine: Instance, port: int, programs: Programs = OURS) -> Plan:
    """What is run to follow the node of this configuration, which may be a simulated one."""
    follow = config.follow
    node_data, node_info, simulation = Path(follow.node_data or ""), follow.node_info, None
    if follow.simulated:
        node_data, node_port = mine.directory("simulated"), instance.free_port()
        node_info = f"http://127.0.0.1:{node_port}"
        simulation = _node(programs, node_data, node_port)

    def engine(epoch: int, _: int) -> list[str]:
        mine.directory("follow")
        settings = configuration.engine_settings(
            config, node_data=str(node_data), node_info=node_info, epoch=epoch
        )
        return [*programs.engine, "--settings", settings.to_json()]

    def gateway(index: int) -> list[str]:
        settings = configuration.gateway_settings(config, index=index, port=port, mode="follow")
        return [*programs.gateway, "--settings", settings.to_json()]

    return Plan(
        engine=engine,
        gateway=gateway,
        gateways=config.gateway.count,
        orphan_seconds=config.supervision.orphan_seconds,
        simulation=simulation,
        simulation_name="node (simulated)",
        source=f"following {'a simulated node' if simulation else node_data}",
        is_recording=follow.replay_speed is not None,
        doubt="" if simulation else doubts_about(node_data),
    )


def _node(programs: Programs, node_data: Path, node_port: int) -> Arguments:
    return lambda: [*programs.simulation, "--out", str(node_data), "--info-port", str(node_port)]


def doubts_about(node_data: Path) -> str:
    """Say what looks wrong with the directory of a node's logs, or nothing. Files may still appear: it is
    no error.
    """
    wanted = [f"{stream}_{form}" for form in FORMS for stream in STREAMS]
    if any((node_data / name).is_dir() for name in wanted):
        return ""
    for pattern in ("*", "*/*", "*/*/*"):
        for below in node_data.glob(f"{pattern}/{STREAMS[0]}_*"):
            return (
                f"no node logs in {node_data} yet, but there are some in {below.parent}: did you mean that?"
            )
    return f"no node logs in {node_data} yet (expected {wanted[0]} and its like): waiting for them"
