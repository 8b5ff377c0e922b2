#!/usr/bin/env python3
#
# Look into mcs images and damage them: see docs/interop/layer.rst
#
# Written from the specification and not from the driver's code, so the tests
# that use it also compare the two.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import struct
import sys

HEADER_SIZE = 4096
GRANULE = 4096

# name: offset, struct format
FIELDS = {
    'magic': (0, '8s'),
    'checksum': (8, '<Q'),
    'version': (16, '<I'),
    'header_size': (20, '<I'),
    'generation': (24, '<Q'),
    'incompatible_features': (32, '<Q'),
    'compatible_features': (40, '<Q'),
    'autoclear_features': (48, '<Q'),
    'virtual_size': (56, '<Q'),
    'map_offset': (64, '<Q'),
    'map_capacity': (72, '<Q'),
    'data_offset': (80, '<Q'),
    'file_size': (88, '<Q'),
    'granule_bits': (96, '<I'),
    'role': (100, '<I'),
    'lifetime': (104, '<I'),
    'desktop': (112, '16s'),
    'token': (128, '16s'),
    'base_size': (144, '<Q'),
    'base_version': (152, '<Q'),
    'base_root': (160, '32s'),
    'assigned_version': (192, '<Q'),
    'assigned_root': (200, '32s'),
    'assigned_size': (232, '<Q'),
    'base_format': (256, '32s'),
    'assigned_format': (288, '32s'),
    'base': (320, '1024s'),
    'assigned': (1344, '1024s'),
}

STATES = {'base': 0, 'data': 1, 'zero': 2, 'bad': 3}

XXH_SECRET = bytes.fromhex(
    'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f'
    'cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c'
    '3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8'
    'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364'
    'eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e'
    '2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e')
PRIME32_1 = 0x9e3779b1
PRIME64_1 = 0x9e3779b185ebca87
MASK = (1 << 64) - 1


def u64(data, offset):
    return struct.unpack_from('<Q', data, offset)[0]


def xxh3_64(data):
    """XXH3, 64 bits, seed 0, of more than 240 bytes"""
    acc = [0xc2b2ae3d, PRIME64_1, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9,
           0x85ebca77c2b2ae63, 0x85ebca77, 0x27d4eb2f165667c5, PRIME32_1]

    def stripe(offset, secret):
        for i in range(8):
            value = u64(data, offset + 8 * i)
            key = value ^ u64(XXH_SECRET, secret + 8 * i)
            acc[i ^ 1] = (acc[i ^ 1] + value) & MASK
            acc[i] = (acc[i] + (key & 0xffffffff) * (key >> 32)) & MASK

    for n in range((len(data) - 1) // 64):
        stripe(64 * n, 8 * (n % 16))
        if n % 16 == 15:
            for i in range(8):
                value = acc[i] ^ acc[i] >> 47 ^ u64(XXH_SECRET, 128 + 8 * i)
                acc[i] = value * PRIME32_1 & MASK
    stripe(len(data) - 64, 121)

    result = len(data) * PRIME64_1
    for i in range(0, 8, 2):
        product = (acc[i] ^ u64(XXH_SECRET, 11 + 8 * i)) * \
                  (acc[i + 1] ^ u64(XXH_SECRET, 19 + 8 * i))
        result += product & MASK ^ product >> 64
    result &= MASK
    result = (result ^ result >> 37) * 0x165667919e3779f9 & MASK
    return result ^ result >> 32


def checksum(buf):
    return xxh3_64(buf[:8] + bytes(8) + buf[16:])


def get(buf, name):
    offset, fmt = FIELDS[name]
    return struct.unpack_from(fmt, buf, offset)[0]


def put(buf, name, text):
    offset, fmt = FIELDS[name]
    if fmt.endswith('s'):
        value = text.encode().decode('unicode_escape').encode('latin-1')
    else:
        value = int(text, 0)
    struct.pack_into(fmt, buf, offset, value)


def valid(buf):
    return get(buf, 'magic') == b'DSKLAYER' and \
        get(buf, 'checksum') == checksum(buf)


def read_copies(fd):
    fd.seek(0)
    return [bytearray(fd.read(HEADER_SIZE)) for _ in range(2)]


def current(fd):
    return max((c for c in read_copies(fd) if valid(c)),
               key=lambda c: get(c, 'generation'))


def cmd_show(fd, *names):
    """print fields of the header in use"""
    header = current(fd)
    for name in names or FIELDS:
        value = get(header, name)
        if isinstance(value, bytes):
            value = value.rstrip(b'\0')
        print(f'{name}: {value}')


def cmd_copies(fd):
    """print whether each copy of the header is valid"""
    for name, copy in zip('AB', read_copies(fd)):
        print(f'copy {name}: {"valid" if valid(copy) else "not valid"}')


def cmd_set(fd, *assignments):
    """FIELD=VALUE...: change both copies of the header, with checksums"""
    for i, copy in enumerate(read_copies(fd)):
        for assignment in assignments:
            put(copy, *assignment.split('=', 1))
        struct.pack_into('<Q', copy, 8, checksum(copy))
        fd.seek(i * HEADER_SIZE)
        fd.write(copy)


def cmd_flip(fd, *offsets):
    """flip one bit of the byte at each offset"""
    for offset in offsets:
        fd.seek(int(offset, 0))
        byte = fd.read(1)[0]
        fd.seek(-1, os.SEEK_CUR)
        fd.write(bytes([byte ^ 0x10]))


def map_byte(fd, granule):
    return get(current(fd), 'map_offset') + granule // 4


def cmd_state(fd, granule, state):
    """put a granule into a state, which may be past the end of the disk"""
    g = int(granule, 0)
    offset = map_byte(fd, g)
    fd.seek(offset)
    byte = fd.read(1)[0]
    byte &= ~(3 << 2 * (g % 4))
    byte |= STATES[state] << 2 * (g % 4)
    fd.seek(offset)
    fd.write(bytes([byte]))


def cmd_map(fd, first='0', count=None):
    """print the state of granules, a letter each"""
    header = current(fd)
    if count is None:
        count = (get(header, 'virtual_size') + GRANULE - 1) // GRANULE
    letters = ''
    for g in range(int(first), int(first) + int(count)):
        fd.seek(map_byte(fd, g))
        letters += 'bdz!'[fd.read(1)[0] >> 2 * (g % 4) & 3]
    print(letters)


def main():
    commands = {name[4:]: function for name, function in globals().items()
                if name.startswith('cmd_')}
    if len(sys.argv) < 3 or sys.argv[2] not in commands:
        print(f'usage: {sys.argv[0]} FILE COMMAND [ARGUMENT]...')
        for name, function in commands.items():
            print(f'  {name}: {function.__doc__}')
        sys.exit(1)
    with open(sys.argv[1], 'r+b') as fd:
        commands[sys.argv[2]](fd, *sys.argv[3:])


if __name__ == '__main__':
    main()
