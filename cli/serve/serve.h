/*
 * deskcast store serve, deskcast relay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_SERVE_H
#define CLI_SERVE_SERVE_H

int command_store_serve(int argc, char **argv);
int command_relay(int argc, char **argv);

#endif /* CLI_SERVE_SERVE_H */
