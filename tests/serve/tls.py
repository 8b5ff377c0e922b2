# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates and keys, right and wrong ones."""

import os
import shutil

from stores.process import new_folder, run


class Authority:
    """Signs; .cert is its certificate. days: how long what it signs is valid."""

    def __init__(self, name='authority'):
        self.dir = new_folder('ca')
        self.key, self.cert = self.dir / 'ca.key', self.dir / 'ca.pem'
        self.serial = 1
        run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-keyout', self.key, '-out',
            self.cert, '-days', '2', '-subj', f'/CN={name}', '-addext',
            'keyUsage=critical,keyCertSign,cRLSign')

    def folder(self, kind, subject, host=None, expired=False, ca=None):
        """What QEMU and libnbd look for; kind is server or client."""
        folder = new_folder(kind)
        shutil.copy((ca or self).cert, folder / 'ca-cert.pem')
        if subject:
            self.issue(folder, kind, subject, host, expired)
        return folder

    def issue(self, folder, kind, subject, host=None, expired=False):
        key, cert = folder / f'{kind}-key.pem', folder / f'{kind}-cert.pem'
        request, more = folder / 'request', folder / 'extensions'
        alt = f'subjectAltName={host}\n' if host else ''
        more.write_text('basicConstraints=CA:FALSE\nkeyUsage=critical,'
                        f'digitalSignature\nextendedKeyUsage={kind}Auth\n{alt}')
        run('openssl', 'req', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out',
            request, '-subj', subject)
        self.serial += 1
        dates = ['-not_after', '20200102000000Z', '-not_before',
                 '20200101000000Z'] if expired else ['-days', '2']
        self.sign(request, cert, more, dates)
        os.chmod(key, 0o600)

    def sign(self, request, cert, more, dates):
        # 'openssl x509' of Debian 12 cannot date back; 'openssl ca' can
        config = self.dir / 'config'
        config.write_text(
            '[ca]\ndefault_ca=d\n[d]\n'
            f'new_certs_dir={self.dir}\ndatabase={self.dir}/index\n'
            f'rand_serial=yes\ncertificate={self.cert}\nprivate_key={self.key}\n'
            'default_md=sha256\npolicy=p\nemail_in_dn=no\n'
            'unique_subject=no\ncopy_extensions=none\n[p]\n'
            'organizationName=optional\ncommonName=supplied\n')
        (self.dir / 'index').touch()
        dates = ['-startdate', '200101000000Z', '-enddate', '200102000000Z'] \
            if dates[0] == '-not_after' else dates
        run('openssl', 'ca', '-batch', '-notext', '-config', config, '-in',
            request, '-out', cert, '-extfile', more, *dates)


def keys(users):
    """A folder with keys.psk: {user: key in hexadecimal}"""
    folder = new_folder('psk')
    path = folder / 'keys.psk'
    path.touch(0o600)
    path.write_text(''.join(f'{u}:{k}\n' for u, k in users.items()))
    return folder


def x509(folder, **more):
    return {'qom-type': 'tls-creds-x509', 'id': 'tls', 'endpoint': 'client',
            'dir': str(folder), 'verify-peer': True, **more}


def psk(folder, user):
    return {'qom-type': 'tls-creds-psk', 'id': 'tls', 'endpoint': 'client',
            'dir': str(folder), 'username': user}
