"""Spreads connections over the API processes, which all accept from one listening socket.

Left to the kernel, whichever process wakes first takes what waits, and two busy callers often share one process while
another is idle. So an idle process takes one connection alone, and one that has some lets a moment pass before it takes
more: an idle one is quicker. ``serve.run_process`` uses it; ``tests/acceptance/test_serving.py`` watches it.
"""

import asyncio
import socket

import structlog
import uvicorn

MOMENT_SECONDS = 0.001
MOST_AT_ONCE = 16
TROUBLE_SECONDS = 0.1  # out of descriptors, mostly: others may close theirs meanwhile

log = structlog.get_logger()


class FairServer(uvicorn.Server):
    """A server that takes its connections one moment later than an idle one would."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._listening = listening
        self._acceptor: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - it has its own
        """Start the application, then take connections."""
        await super().startup(sockets=[])
        self._listening.setblocking(False)
        self._acceptor = asyncio.create_task(self._accept())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections; finish what is under way."""
        if self._acceptor is not None:
            self._acceptor.cancel()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        while True:
            await self._readable()
            is_idle = not self.server_state.connections
            if not is_idle:
                await asyncio.sleep(MOMENT_SECONDS)
            try:
                for _ in range(1 if is_idle else MOST_AT_ONCE):
                    connection, _address = self._listening.accept()
                    await self._take(connection)
            except BlockingIOError:
                continue  # somebody else was quicker
            except OSError as error:
                log.warning("accept_failed", error=str(error))
                await asyncio.sleep(TROUBLE_SECONDS)

    async def _readable(self) -> None:
        """Return when a connection waits to be accepted."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(None)

        loop.add_reader(self._listening, wake)
        try:
            await waiting
        finally:
            loop.remove_reader(self._listening)

    async def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        config, state = self.config, self.server_state

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=state, app_state=self.lifespan.state
            )
            return made

        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
