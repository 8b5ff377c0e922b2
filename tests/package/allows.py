# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy of SELinux allows: allows.py POLICY DOMAINS

DOMAINS is a file with those that services are started in.
"""

import pathlib
import sys

import setools      # pylint: disable=import-error

TABLE = """
yes deskcast_store_t    deskcast_image_t     file write
yes deskcast_store_t    deskcast_cert_t      file read
no  deskcast_store_t    deskcast_image_t     file unlink
no  deskcast_store_t    deskcast_cache_t     file read
no  deskcast_store_t    deskcast_disk_t      file read
no  deskcast_store_t    deskcast_authority_t file read
yes deskcast_relay_t    deskcast_cache_t     file unlink
yes deskcast_relay_t    deskcast_runtime_t   file map
yes deskcast_relay_t    deskcast_cert_t      file read
no  deskcast_relay_t    deskcast_image_t     file read
no  deskcast_relay_t    deskcast_disk_t      file read
no  deskcast_relay_t    deskcast_authority_t file read
yes deskcast_exporter_t deskcast_runtime_t   sock_file write
yes deskcast_exporter_t svirt_t              unix_stream_socket connectto
no  deskcast_exporter_t deskcast_cert_t      file read
no  deskcast_exporter_t deskcast_cache_t     file read
yes svirt_t             deskcast_cache_t     file read
yes svirt_t             deskcast_disk_t      file write
yes svirt_t             deskcast_relay_t     unix_stream_socket connectto
no  svirt_t             deskcast_cache_t     file write
no  svirt_t             deskcast_image_t     file write
no  svirt_t             deskcast_authority_t file read
yes init_t              deskcast_relay_t     process transition
yes deskcast_relay_t    deskcast_exec_t      file entrypoint
no  deskcast_relay_t    deskcast_relay_t     process execmem
no  deskcast_relay_t    shadow_t             file read
"""


def allowed(policy, source, target, kind, permission):
    query = setools.TERuleQuery(policy, ruletype=["allow"], source=source, target=target,
                                tclass=[kind], perms=[permission])
    return any(query.results())


def main():
    policy = setools.SELinuxPolicy(sys.argv[1])
    domains = pathlib.Path(sys.argv[2]).read_text(encoding="ascii").split()
    rows = [line.split() for line in TABLE.strip().splitlines()]
    rows += [["yes", "init_t", d, "process", "transition"] for d in domains]
    rows += [["yes", d, "deskcast_exec_t", "file", "entrypoint"] for d in domains]
    wrong = [r for r in rows if allowed(policy, *r[1:]) != (r[0] == "yes")]
    for row in wrong:
        print("it should be:", *row)
    return bool(wrong) or len(rows) < 20


sys.exit(main())
