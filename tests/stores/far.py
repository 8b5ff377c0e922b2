# SPDX-License-Identifier: GPL-2.0-or-later
"""Far stores: HTTPS from nginx, iSCSI from tgt, NFS from nfs-ganesha.

The servers are unpacked by scripts/fetch-server, not installed.
"""

import os
import shutil

from .netns import Namespace
from .process import (Missing, Process, Store, answers, fetch, free_port, need,
                      run, until)

LIBRARIES = 'usr/lib/x86_64-linux-gnu'
EXPORT = '/disk'


def library_path(*directories):
    return {'LD_LIBRARY_PATH': ':'.join(map(str, directories))}


class TcpStore(Store):
    """A server at a free port of the loopback interface."""

    def __init__(self, image, netns=None):
        super().__init__(image, netns)
        self.port = free_port()

    def ready(self):
        return answers(('127.0.0.1', self.port))


class Nginx(TcpStore):
    """HTTPS with ranges; the certificate is its own authority, which is why
    QEMU is told not to check it."""

    name = 'nginx'

    def prepare(self):
        self.tree = fetch('nginx')
        run(need('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
            '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1',
            '-keyout', self.dir / 'key.pem', '-out', self.dir / 'cert.pem')
        # a link, so that nothing else of the image's folder is served
        (self.dir / 'www').mkdir()
        (self.dir / 'www/disk').symlink_to(self.image.resolve())
        if os.geteuid() == 0:
            self.dir.chmod(0o755)
        (self.dir / 'conf').write_text(self.configuration())

    def configuration(self):
        root = ' user root;' if os.geteuid() == 0 else ''
        temporary = ' '.join(
            f'{kind}_temp_path {self.dir}/{kind};' for kind in
            ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
        # one process, which is all that is frozen or killed
        return (f'daemon off; master_process off; pid {self.dir}/pid;{root}\n'
                f'error_log {self.log};\n'
                'events { worker_connections 64; }\n'
                f'http {{ access_log off; sendfile on; {temporary}\n'
                'keepalive_requests 1000000;\n'
                f'server {{ listen 127.0.0.1:{self.port} ssl;\n'
                f'ssl_certificate {self.dir}/cert.pem;\n'
                f'ssl_certificate_key {self.dir}/key.pem;\n'
                f'root {self.dir}/www; }} }}\n')

    def argv(self):
        return [self.tree / 'usr/sbin/nginx', '-c', self.dir / 'conf', '-e',
                self.log]

    def env(self):
        return library_path(self.tree / LIBRARIES)

    def options(self):
        return {'driver': 'https', 'sslverify': False,
                'url': f'https://127.0.0.1:{self.port}{EXPORT}'}


class Tgt(TcpStore):
    """An iSCSI target with one disk."""

    name = 'tgt'
    target = 'iqn.2001-04.com.example:disk'

    def prepare(self):
        self.tree = fetch('tgt')
        self.number = str(self.port % 1000)     # 15 bits at most

    def argv(self):
        return [self.tree / 'usr/sbin/tgtd', '--foreground', '-C', self.number,
                '--iscsi', f'portal=127.0.0.1:{self.port}']

    def env(self):
        return {**library_path(self.tree / LIBRARIES),
                'TGT_IPC_SOCKET': str(self.dir / 'control')}

    def stop(self):
        self.kill()     # it does not end while it has a target

    def admin(self, *argv):
        run(self.tree / 'usr/sbin/tgtadm', '-C', self.number, '--lld', 'iscsi',
            *argv, env={**os.environ, **self.env()})

    def configure(self):
        self.admin('--mode', 'target', '--op', 'new', '--tid', '1', '-T',
                   self.target)
        self.admin('--mode', 'logicalunit', '--op', 'new', '--tid', '1',
                   '--lun', '1', '-b', self.image.resolve())
        self.admin('--mode', 'logicalunit', '--op', 'update', '--tid', '1',
                   '--lun', '1', '--params', 'readonly=1')
        self.admin('--mode', 'target', '--op', 'bind', '--tid', '1', '-I',
                   'ALL')

    def options(self):
        return {'driver': 'iscsi', 'transport': 'tcp', 'lun': 1,
                'portal': f'127.0.0.1:{self.port}', 'target': self.target}


class Ganesha(Store):
    """NFS. QEMU's client asks the port mapper and knows no other way, so both
    run in a namespace where the standard ports are free; who reads has to be
    in there, too: netns."""

    name = 'ganesha'

    def __init__(self, image):
        super().__init__(image, Namespace(mounts=True))
        self.mapper = None

    def prepare(self):
        if os.geteuid() != 0:
            raise Missing('root: rpcbind changes its groups')
        self.tree = fetch('nfs-ganesha')
        self.netns.__enter__()
        for name in ('rpcbind', 'ganesha'):
            self.netns.run('mkdir', '-p', f'/run/{name}')
        (self.dir / 'www').mkdir()
        self.fill()
        (self.dir / 'conf').write_text(self.configuration())
        self.give_user('_rpc')
        self.mapper = Process([self.tree / 'sbin/rpcbind', '-f', '-w'],
                              self.log, self.netns, self.env())
        until(lambda: self.netns.listens(111), 10, 'rpcbind listens')

    def fill(self):
        # a copy: a link or a mount would show the path, not the file
        shutil.copyfile(self.image, self.dir / 'www/disk')

    def give_user(self, name):
        """rpcbind becomes a user that its package makes."""
        users = self.dir / 'passwd'
        users.write_text(f'{open("/etc/passwd").read()}{name}:x:0:0::/:/bin/sh\n')
        self.netns.run('mount', '--bind', users, '/etc/passwd')

    def __exit__(self, *_):
        try:
            super().__exit__()
        finally:
            if self.mapper:
                self.mapper.kill()
            self.netns.__exit__()

    def configuration(self):
        return (f'NFS_CORE_PARAM {{ Protocols = 3;\n'
                'Enable_NLM = false; Enable_RQUOTA = false;\n'
                f'Plugins_Dir = "{self.tree}/{LIBRARIES}/ganesha"; }}\n'
                'NFSv4 { Graceless = true; UseGetpwnam = true; '
                f'RecoveryRoot = "{self.dir}/recovery"; }}\n'
                'EXPORT { Export_Id = 1; Pseudo = "/www";\n'
                f'Path = "{self.dir}/www"; Access_Type = RO;\n'
                'Squash = none; SecType = sys; Protocols = 3;\n'
                'FSAL { Name = VFS; } }\n')

    def argv(self):
        return [self.tree / 'usr/bin/ganesha.nfsd', '-F', '-p',
                self.dir / 'pid', '-f', self.dir / 'conf', '-L', self.log]

    def env(self):
        return library_path(self.tree / LIBRARIES,
                            self.tree / 'usr/lib/ganesha')

    def ready(self):
        return self.netns.listens(2049)

    def options(self):
        return {'driver': 'nfs', 'path': f'{self.dir}/www/disk',
                'server': {'type': 'inet', 'host': '127.0.0.1'}}
