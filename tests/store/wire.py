#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A way to an NFS server that breaks at the worst moment.

usage: wire.py PORT SERVER-PORT FILE NOTE

A client that replaces a file which one of its own processes has open renames that
file first, to ".nfs…". Behind the request that does this to FILE nothing passes
any more, in either direction, and NOTE is made.
"""

import asyncio
import pathlib
import sys

broken = asyncio.Event()


def renames(data, old):
    """Names stand in a request as they are; only this one has both."""
    return b'.nfs' in data and old in data


async def pass_on(reader, writer, old, note):
    while data := await reader.read(1 << 20):
        if broken.is_set():
            await asyncio.Event().wait()
        if old and renames(data, old):
            broken.set()
            pathlib.Path(note).touch()
        writer.write(data)
        await writer.drain()
    writer.close()


def serve(server_port, old, note):
    async def connected(reader, writer):
        if broken.is_set():
            await asyncio.Event().wait()
        back, out = await asyncio.open_connection('127.0.0.1', server_port)
        await asyncio.gather(pass_on(reader, out, old, note),
                             pass_on(back, writer, b'', note))
    return connected


async def main(port, server_port, old, note):
    server = await asyncio.start_server(
        serve(int(server_port), old.encode(), note), '127.0.0.1', int(port))
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
