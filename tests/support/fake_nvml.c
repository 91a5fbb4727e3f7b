/* A driver's library without a driver: what it tells is in the file that FAKE_NVML names, read anew at each count.

   One line for each thing, words separated by blanks (a name's blanks are written as underscores):
     init CODE                  nvmlInit fails with it; 9 is "driver not loaded"
     hang                       every count hangs, for ever
     gpu UUID NAME MIB NUMA     another GPU; its place on the bus is its number
     lost NUMBER                that GPU has fallen off the bus
     ecc NUMBER COUNT           uncorrectable errors
     rows NUMBER                memory rows wait to be replaced
     xid NUMBER CODE            told once
     mig NUMBER UUID NAME MIB   an instance of that GPU, which is in MIG mode then
     divided NUMBER             that GPU is in MIG mode
     link NUMBER PLACE          an NVLink to what is at that place of the bus: another GPU (its number) or a switch
     dark NUMBER                a link that is down
     process NUMBER PID MIB     a program on that GPU
     energy NUMBER MJ           what its counter says (5000 and 1000 more for each number, without this)
     use NUMBER PERCENT         how much of the time it computes (10 and its number, without this)
     old                        a driver that knows neither power, energy nor MIG
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, TIMEOUT = 10, LOST = 15, MOST = 16 };

typedef struct { int used, number, parent, mib, numa, lost, ecc, rows, divided, use, links, link[8]; long long energy; char uuid[96], name[96]; } Device;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char place[32]; } Pci;
typedef struct { Device *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Use;

static Device gpus[MOST], parts[MOST];
static Process processes[MOST][4];
static int count, part_count, init_code, old, process_count[MOST];
static int xid_gpu[MOST], xid_code[MOST], xid_count, xid_told;

static void name_of(char *to, const char *from) {
    snprintf(to, 96, "%s", from);
    for (; *to; to++) if (*to == '_') *to = ' ';
}

static void look(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512], a[96], b[96];
    int n, m, k;
    count = part_count = init_code = old = xid_count = 0;
    memset(gpus, 0, sizeof gpus);
    memset(parts, 0, sizeof parts);
    memset(process_count, 0, sizeof process_count);
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "init %d", &n) == 1) init_code = n;
        else if (!strncmp(line, "hang", 4)) { for (;;) pause(); }
        else if (!strncmp(line, "old", 3)) old = 1;
        else if (sscanf(line, "gpu %95s %95s %d %d", a, b, &n, &m) == 4 && count < MOST) {
            Device *gpu = &gpus[count];
            *gpu = (Device){.used = 1, .number = count, .parent = -1, .mib = n, .numa = m,
                .use = 10 + count, .energy = 5000 + 1000 * count};
            snprintf(gpu->uuid, 96, "%s", a);
            name_of(gpu->name, b);
            count++;
        }
        else if (sscanf(line, "lost %d", &n) == 1) gpus[n].lost = 1;
        else if (sscanf(line, "ecc %d %d", &n, &m) == 2) gpus[n].ecc = m;
        else if (sscanf(line, "energy %d %d", &n, &m) == 2) gpus[n].energy = m;
        else if (sscanf(line, "use %d %d", &n, &m) == 2) gpus[n].use = m;
        else if (sscanf(line, "link %d %d", &n, &m) == 2) gpus[n].link[gpus[n].links++] = m;
        else if (sscanf(line, "dark %d", &n) == 1) gpus[n].link[gpus[n].links++] = -1;
        else if (sscanf(line, "rows %d", &n) == 1) gpus[n].rows = 1;
        else if (sscanf(line, "divided %d", &n) == 1) gpus[n].divided = 1;
        else if (sscanf(line, "xid %d %d", &n, &m) == 2) { xid_gpu[xid_count] = n; xid_code[xid_count++] = m; }
        else if (sscanf(line, "mig %d %95s %95s %d", &n, a, b, &m) == 4 && part_count < MOST) {
            Device *part = &parts[part_count++];
            *part = (Device){.used = 1, .number = n, .parent = n, .mib = m};
            gpus[n].divided = 1;
            snprintf(part->uuid, 96, "%s", a);
            name_of(part->name, b);
        }
        else if (sscanf(line, "process %d %d %d", &n, &m, &k) == 3)
            processes[n][process_count[n]++] = (Process){m, (unsigned long long)k << 20, 0, 0};
    }
    if (file) fclose(file);
}

#define ALIVE(device) do { if ((device)->lost) return LOST; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; look(); return init_code; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    return code == 9 ? "Driver Not Loaded" : code == LOST ? "GPU is lost" : code == 18 ? "Driver/library version mismatch"
        : code == UNSUPPORTED ? "Not Supported" : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *to, unsigned size) { snprintf(to, size, "535.00"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *to) { look(); *to = count; return init_code; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **to) {
    if (index >= (unsigned)count) return INVALID;
    ALIVE(&gpus[index]);
    *to = &gpus[index];
    return OK;
}
int nvmlDeviceGetIndex(Device *gpu, unsigned *to) { *to = gpu->number; return OK; }
int nvmlDeviceGetUUID(Device *gpu, char *to, unsigned size) { ALIVE(gpu); snprintf(to, size, "%s", gpu->uuid); return OK; }
int nvmlDeviceGetName(Device *gpu, char *to, unsigned size) { ALIVE(gpu); snprintf(to, size, "%s", gpu->name); return OK; }
int nvmlDeviceGetMinorNumber(Device *gpu, unsigned *to) { *to = 40 + gpu->number; return OK; }
int nvmlDeviceGetPciInfo_v3(Device *gpu, Pci *to) {
    memset(to, 0, sizeof *to);
    snprintf(to->place, sizeof to->place, "00000000:%02X:00.0", gpu->number + 1);
    return OK;
}
int nvmlDeviceGetNvLinkState(Device *gpu, unsigned link, int *to) {
    ALIVE(gpu);
    if (link >= (unsigned)gpu->links) return old ? UNSUPPORTED : INVALID;
    *to = gpu->link[link] >= 0;
    return OK;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *gpu, unsigned link, Pci *to) {
    if (link >= (unsigned)gpu->links || gpu->link[link] < 0) return INVALID;
    memset(to, 0, sizeof *to);
    snprintf(to->place, sizeof to->place, "00000000:%02x:00.0", gpu->link[link] + 1);
    return OK;
}
int nvmlDeviceGetMemoryInfo(Device *gpu, Memory *to) {
    ALIVE(gpu);
    to->total = (unsigned long long)gpu->mib << 20;
    to->used = to->total / 4;
    to->free = to->total - to->used;
    return OK;
}
int nvmlDeviceGetUtilizationRates(Device *gpu, Use *to) { ALIVE(gpu); *to = (Use){gpu->use, 5}; return OK; }
int nvmlDeviceGetClockInfo(Device *gpu, int kind, unsigned *to) { ALIVE(gpu); *to = kind == 0 ? 1410 : 1215; return OK; }
int nvmlDeviceGetTemperature(Device *gpu, int kind, unsigned *to) { (void)kind; ALIVE(gpu); *to = 40 + gpu->number; return OK; }
int nvmlDeviceGetFanSpeed(Device *gpu, unsigned *to) { (void)gpu; (void)to; return UNSUPPORTED; }
int nvmlDeviceGetPowerUsage(Device *gpu, unsigned *to) { ALIVE(gpu); if (old) return UNSUPPORTED; *to = 60000; return OK; }
int nvmlDeviceGetTotalEnergyConsumption(Device *gpu, unsigned long long *to) {
    ALIVE(gpu);
    if (old) return UNSUPPORTED;
    *to = gpu->energy;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(Device *gpu, unsigned *to) { ALIVE(gpu); if (old) return UNSUPPORTED; *to = 400000; return OK; }
int nvmlDeviceGetMigMode(Device *gpu, unsigned *current, unsigned *pending) {
    ALIVE(gpu);
    if (old) return UNSUPPORTED;
    *current = *pending = gpu->divided;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *gpu, unsigned *to) { (void)gpu; *to = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *gpu, unsigned index, Device **to) {
    for (int place = 0, of_this = 0; place < part_count; place++)
        if (parts[place].parent == gpu->number && of_this++ == (int)index) { *to = &parts[place]; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device *gpu, unsigned *size, Process *to) {
    int found = gpu->parent < 0 ? process_count[gpu->number] : 0;
    ALIVE(gpu);
    if (!found) { *size = 0; return OK; }
    if ((int)*size < found) { *size = found; return SMALL; }
    memcpy(to, processes[gpu->number], found * sizeof *to);
    *size = found;
    return OK;
}
int nvmlDeviceGetRemappedRows(Device *gpu, unsigned *a, unsigned *b, unsigned *pending, unsigned *failed) {
    *a = *b = *failed = 0;
    *pending = gpu->rows;
    return OK;
}
int nvmlDeviceGetTotalEccErrors(Device *gpu, int type, int counter, unsigned long long *to) {
    (void)type; (void)counter;
    *to = gpu->ecc;
    return OK;
}
int nvmlEventSetCreate(void **to) { *to = gpus; return OK; }
int nvmlDeviceRegisterEvents(Device *gpu, unsigned long long types, void *set) { (void)gpu; (void)types; (void)set; return OK; }
int nvmlEventSetWait_v2(void *set, Event *to, unsigned wait) {
    (void)set; (void)wait;
    look();
    if (xid_told >= xid_count) return TIMEOUT;
    *to = (Event){&gpus[xid_gpu[xid_told]], 8, xid_code[xid_told], 0, 0};
    xid_told++;
    return OK;
}
