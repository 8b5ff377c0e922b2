/*
 * Power-cut test: a device that is logged, and that may be lost
 *
 * A disk in memory, opened as {"driver": "test-store", "device": NAME}. The
 * devices of one log share its clock: it counts the begin and the end of each
 * request, so there is one order over all of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_POWER_DEVICE_H
#define TESTS_POWER_DEVICE_H

#include "../crash/fixture.h"

typedef enum DeviceRequest {
    DEVICE_WRITE,
    DEVICE_ZERO,
    DEVICE_DISCARD,
    DEVICE_FLUSH,
    DEVICE_CRASH,       /* the device alone: data has what it came back with */
} DeviceRequest;

/* A sector as a crash of the device left it */
typedef struct DeviceSector {
    int64_t offset;
    uint8_t data[SECTOR];
} DeviceSector;

typedef struct LogEvent {
    unsigned device;            /* Device.number */
    DeviceRequest request;
    int64_t offset, bytes;      /* crash: 0, and the number of sectors */
    uint64_t begin, end;
    uint8_t *data;              /* write: bytes; crash: DeviceSector */
} LogEvent;

typedef struct Log {
    uint64_t clock;
    GArray *events;             /* LogEvent, as they ended */
} Log;

Log *log_new(void);
void log_free(Log *log);
uint64_t log_tick(Log *log);

/* What happens to a device, or to the way to it */
typedef enum DeviceFault {
    FAULT_ERROR,        /* one request fails */
    FAULT_LINK,         /* all fail for a while; what it holds stays */
    FAULT_CRASH,        /* so, and it forgets what was not flushed */
} DeviceFault;

typedef struct DeviceRange {
    int64_t offset, bytes;
} DeviceRange;

typedef struct DeviceInFlight DeviceInFlight;

typedef struct Device {
    /* Never changed while it is open */
    char *name;
    unsigned number;            /* in the log */
    int64_t length;
    Log *log;                   /* NULL: none; else one thread uses it */
    /* A request lets others run up to so often, and waits up to so long */
    unsigned max_yields, max_wait_us;

    QemuMutex lock;             /* for all that follows */
    uint8_t *data;
    Rng rng;
    GArray *touched;            /* DeviceRange; NULL: not noted */

    /* With a log: what a crash would leave at least, and what it may leave */
    uint8_t *durable;
    GArray *pending;            /* LogEvent, without what is durable */

    QLIST_HEAD(, DeviceInFlight) in_flight;
    bool down;
    int64_t up_at;              /* ns, realtime */
    uint64_t refused;           /* requests, since it is down */
    uint64_t connection;        /* counts losses */
    unsigned fault_in;          /* requests until the next one; 0: none */
    DeviceFault fault;
    unsigned fault_ms;
    bool fault_on_read;         /* between writes and their flush */
    bool spares_reads;          /* faults do not hit them */
    bool spares_changes;        /* nor what is no read */
    bool fault_stays;           /* errors: of all that come then */
    /* The next one, until held is false */
    bool holds_read, holds_write, holds_flush;
    bool held;                  /* it is there; one thread uses it */
    uint64_t failed;            /* requests that were told so */
    uint64_t failed_at;         /* in the log, the first of them */
    uint64_t faults[FAULT_CRASH + 1];
    uint64_t requests;
} Device;

/* With the content of @from */
Device *device_new(const char *name, const uint8_t *from, int64_t length,
                   uint64_t seed);
void device_free(Device *d);

/* Record all requests in @log from now on, as number @number */
void device_start_log(Device *d, Log *log, unsigned number);

/*
 * Hit the @in-th request from now on, or, with @on_read, of the reads that come
 * while something is not flushed, and no write under way. Outages take @ms at
 * least.
 */
void device_plan_fault(Device *d, DeviceFault fault, unsigned in, unsigned ms,
                       bool on_read);

/* It comes back, whatever was planned */
void device_repair(Device *d);

/* Memory of which what is zero costs nothing */
uint8_t *device_alloc(int64_t length);
uint8_t *device_dup(const uint8_t *from, int64_t length);
void device_free_data(uint8_t *data, int64_t length);

/* Once, before any is opened */
void device_init(void);

#endif /* TESTS_POWER_DEVICE_H */
