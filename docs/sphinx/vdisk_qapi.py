# SPDX-License-Identifier: GPL-2.0-or-later
"""The directive vdisk-qapi: commands, events and types as QEMU's schema has them.

They are taken from qapi/vdisk.json, and from what our patch adds to QEMU's own
block-core.json, so that nothing is said twice. QEMU's documentation of these is
plain: an introduction, '@name: text' for each member, 'Errors:', an example.

    .. vdisk-qapi:: command event
    .. vdisk-qapi:: struct enum
        :names: BlockdevOptionsPvs

What patches add to types that QEMU has had before is shown by vdisk-qapi-added, with
the type as its argument.
"""

import json
import pathlib
import re

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.util.nodes import nested_parse_with_titles

TOP = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = TOP / 'qapi/vdisk.json'
PATCHES = TOP / 'patches/10.0'
PATCH = PATCHES / '0002-qapi-block-core-add-mcs-and-pvs.patch'
STATISTICS = PATCHES / '0018-nbd-count-connections.patch'
# Hunks begin in the middle of a type: which one it is, by the file
CHANGED = {'BlockdevOptionsNbd': 'qapi/block-core.json',
           'BlockExportOptionsNbd': 'qapi/block-export.json'}

ENTITY = re.compile(r"^##\n# @(?P<name>[\w-]+):\n(?P<text>(?:#[^\n]*\n)*?)##\n"
                    r"(?P<body>\{[^#]*?\})\n(?=\n|##|\Z)", re.M)


class Entity:
    """A command, an event or a type"""

    def __init__(self, name, text, body):
        self.name = name
        body = json.loads(re.sub(r"(?m)^\s*#.*$", '', body).replace("'", '"'))
        self.kind = next(k for k in ('command', 'event', 'struct', 'enum') if k in body)
        self.types = body.get('data', {})
        self.base, self.returns = body.get('base'), body.get('returns')
        lines = [line[2:] for line in text.splitlines()]
        self.intro, self.members, self.rest = split(lines)
        if self.kind == 'enum':
            self.types = {n if isinstance(n, str) else n['name']: None for n in self.types}


def split(lines):
    """Introduction, {member: text}, and the sections behind these"""
    intro, members, rest, target = [], {}, [], None
    for line in lines:
        member = re.match(r'@([\w-]+):\s*(.*)', line)
        if member:
            target = members.setdefault(member[1], [member[2]])
        elif re.match(r'(Errors|Returns|Since|Features):|\.\. qmp-example::', line):
            target = rest
            rest.append(line)
        elif target is None:
            intro.append(line)
        elif target is rest or line.startswith(' ') or not line:
            target.append(line if target is rest else line.strip())
        else:
            raise ValueError(f'not understood: {line}')
    return intro, members, rest


def added_lines(patch, file=None):
    """What it adds, to one file or to all"""
    for part in re.split(r'(?m)^diff --git |^--- ', patch.read_text()):
        name = re.search(r'^\+\+\+ b/(\S+)', part, re.M)
        if file is None or (name and name[1] == file):
            yield from re.findall(r'^\+(?!\+\+)(.*)$', part, re.M)


def sources():
    added = [*added_lines(PATCH), *added_lines(STATISTICS)]
    return SCHEMA.read_text() + '\n' + '\n'.join(added) + '\n'


def added_members(struct):
    """{name: (type, lines)} of what our patches add to a type of QEMU's"""
    types, texts = {}, {}
    for patch in sorted(PATCHES.glob('*nbd*.patch')):
        lines = list(added_lines(patch, CHANGED[struct]))
        target = None
        for line in lines:
            member = re.match(r'# @([\w-]+): +(.*)', line)
            if member:
                target = texts.setdefault(member[1], [member[2]])
            elif target is not None and re.match(r'#( |$)', line):
                target.append(line[1:].strip())
            else:
                target = None
            types.update(re.findall(r"'\*([\w-]+)': '(\w+)'", line))
    return {n: (t, texts[n]) for n, t in types.items() if n in texts}


def entities():
    return {m['name']: Entity(m['name'], m['text'], m['body'])
            for m in ENTITY.finditer(sources())}


def literal(text, known):
    """@name of QEMU's documentation is a link here, or ``name``"""
    return re.sub(r'@([\w-]*\w)', lambda m: link(m[1], known) if m[1] in known
                  else f'``{m[1]}``', text)


def link(name, known):
    return f':ref:`{name} <qapi-{name}>`' if name in known else name


def type_name(kind, known):
    if isinstance(kind, list):
        return 'list of ' + link(kind[0], known)
    return link(kind, known)


def member_lines(entity, known):
    for name, kind in entity.types.items():
        plain = name.lstrip('*')
        what = ', '.join(([type_name(kind, known)] if kind else []) +
                         (['optional'] if name != plain else []))
        yield f'``{plain}``' + (f' ({what})' if what else '')
        for line in entity.members[plain]:
            yield '    ' + literal(line, known)
        yield ''


def rest_lines(entity, known):
    """Errors, what is returned, and the example"""
    indent = ''
    for line in entity.rest:
        if line.startswith('Since:'):
            continue
        if line == 'Errors:':
            indent = '    '
            yield from ('Errors:', '')
        elif line.startswith('.. qmp-example::'):
            indent = None
            yield '::'
        elif indent is None:
            yield line
        else:
            yield literal(line.removeprefix(indent), known)


def rest(entity, known):
    """As reStructuredText"""
    yield from (f'.. _qapi-{entity.name}:', '', entity.name, '~' * len(entity.name), '')
    yield from (literal(line, known) for line in entity.intro)
    yield ''
    if isinstance(entity.base, str):
        yield from (f'Members of {type_name(entity.base, known)}, and:', '')
    yield from member_lines(entity, known)
    yield from rest_lines(entity, known)
    yield ''


class VdiskQapi(Directive):
    """All entities of these kinds, or those named"""
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {'names': directives.unchanged}

    def chosen(self, known):
        kinds = self.arguments[0].split()
        names = self.options.get('names', '').split()
        return [known[n] for n in names or known if known[n].kind in kinds]

    def run(self):
        env = self.state.document.settings.env
        for file in (SCHEMA, PATCH, pathlib.Path(__file__)):
            env.note_dependency(str(file))
        known = entities()
        lines = StringList()
        for entity in self.chosen(known):
            for line in rest(entity, known):
                lines.append(line, str(SCHEMA))
        node = nodes.section()
        node.document = self.state.document
        nested_parse_with_titles(self.state, lines, node)
        return node.children


class VdiskQapiAdded(Directive):
    """What patches add to one type of QEMU's"""
    required_arguments = 1

    def run(self):
        env = self.state.document.settings.env
        for patch in PATCHES.glob('*nbd*.patch'):
            env.note_dependency(str(patch))
        known, lines = entities(), StringList()
        for name, (kind, text) in sorted(added_members(self.arguments[0]).items()):
            for line in (f'``{name}`` ({kind}, optional)',
                         *('    ' + literal(t, known) for t in text), ''):
                lines.append(line, str(PATCHES))
        node = nodes.section()
        node.document = self.state.document
        nested_parse_with_titles(self.state, lines, node)
        return node.children


def setup(app):
    app.add_directive('vdisk-qapi', VdiskQapi)
    app.add_directive('vdisk-qapi-added', VdiskQapiAdded)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
