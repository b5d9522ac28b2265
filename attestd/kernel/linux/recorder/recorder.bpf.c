// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// What the kernel remembers about processes, for attestd (docs/evidence/README.md).
//
//   alive     every process: who created it, its image at exec. Removed at exit, so short-lived processes cannot push it out.
//   dead      the same records after exit, for lineage through dead ancestors; least recently used are forgotten.
//   words     argv, environment and cwd of the running image of the living: first in places made beforehand (words_of_living),
//             then, when those are taken, in memory that the task carries (words_of_task; optional, allocated at each exec).
//   events    the same words as a stream, so that a process that is gone already has them.
//   connects  socket cookie -> who called connect(); not removed at close, a client may be gone before accept().
//   stats     what was lost, counted; atomic adds.
//   state     layout version and build; written by the loader, never here.
//
// Keys are (start tick, tgid): the tick (10 ms) is what /proc shows, the exact start time stands in the record.
// A process is a thread group; threads are ignored. The parent is the process that called fork or clone: CLONE_PARENT
// does not hide it. Field offsets come from the running kernel (CO-RE); what a kernel may lack is asked for with exists().
//
// Build: make recorder. The committed object is compared with a rebuild by make recorder-verify.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define CORE __attribute__((preserve_access_index))
#define FIELD_EXISTS(field) __builtin_preserve_field_info(field, 2)
#define FIELD_OFFSET(field) __builtin_preserve_field_info(field, 0)
#define ENUMERATOR_EXISTS(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) typeof(type) *name

char license_text[] SEC("license") = "Dual MIT/GPL";

// ---- the kernel's structures, as far as they are read ----

struct qstr {
	const unsigned char *name;
} CORE;

struct super_block {
	u32 s_dev;
} CORE;

struct timespec64 {
	s64 tv_sec;
	long tv_nsec;
} CORE;

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	s64 i_size;
	u32 i_generation;
	s64 i_ctime_sec; // 6.11 and later
	u32 i_ctime_nsec;
} CORE;

struct inode___6_6 {
	struct timespec64 __i_ctime;
} CORE;

struct inode___older {
	struct timespec64 i_ctime;
} CORE;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
} CORE;

struct vfsmount {
	struct dentry *mnt_root;
} CORE;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} CORE;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} CORE;

struct fs_struct {
	struct path root;
	struct path pwd;
} CORE;

struct file {
	struct inode *f_inode;
} CORE;

struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start;
	unsigned long arg_end;
	unsigned long env_start;
	unsigned long env_end;
} CORE;

typedef struct {
	s32 counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} CORE;

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
	kuid_t euid;
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup {
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;

struct task_struct {
	s32 pid;
	s32 tgid;
	u64 start_boottime;
	u64 self_exec_id;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct signal_struct *signal;
	const struct cred *real_cred;
	struct css_set *cgroups;
	char comm[16];
} CORE;

struct linux_binprm {
	struct file *file;
	const char *filename;
	const char *interp;
} CORE;

enum bpf_map_type { BPF_MAP_TYPE_TASK_STORAGE = 29 };

// The stable interface of the cgroup address hooks (include/uapi/linux/bpf.h).
struct bpf_sock_addr {
	u32 user_family;
	u32 user_ip4;
	u32 user_ip6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
};

// ---- helpers, by their numbers in include/uapi/linux/bpf.h ----

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const socket_cookie)(void *ctx) = (void *)46;
static long (*const read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*const read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*const boot_ns)(void) = (void *)125;
static long (*const ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*const ring_query)(void *ring, u64 what) = (void *)134;
static void *(*const storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static long (*const storage_delete)(void *map, struct task_struct *task) = (void *)157;
static struct task_struct *(*const current_task)(void) = (void *)158;

#define NOEXIST 1
#define STORAGE_CREATE 1
#define RING_NO_WAKEUP 1
#define RING_FORCE_WAKEUP 2
#define RING_WAITING 0
#define RING_PRODUCED 3

// ---- what is kept; attestd/kernel/linux/recorder/layout.py reads the same bytes ----

#define LAYOUT_VERSION 2
#define TICK_NS 10000000ULL
#define CTIME_FLAGS 0x80000000U // 6.13 and later mark in i_ctime_nsec that the time was queried

#define PRE_ATTACH 1	  // its birth was not seen, because it is older than the recorder
#define GAP 2		  // its birth was not seen, although it is younger
#define IMAGE_CLAIMED 4	  // the image is what the process claimed when it was first seen, not what was executed
#define IMAGE_KNOWN 8
#define EXECUTED 16	  // its last exec was seen, so that it has words of its own

#define ARGV_CUT 1
#define ENVIRON_CUT 2
#define PATH_CUT 4
#define UNREADABLE 8

#define ARGV_MAX 1024
#define ENVIRON_MAX 6144
#define NAME_MAX 512
#define COMPONENTS_MAX 48
#define WORDS_HEADER 56
#define WORDS_MAX 7936
#define KEPT_MAX 3840 // with the header of task storage it fits into 4 KiB; a larger value costs every exec 7 µs
#define CWD_END (WORDS_HEADER + 1024)
#define RING_BYTES (8 << 20)
#define RING_WAKE (RING_BYTES / 4)
#define RING_WAKE_STEP (128 << 10) // a wake-up is an interrupt: at most one of each CPU in so many bytes

struct key {
	u64 tick;
	u32 tgid;
	u32 zero;
};

struct process {
	u64 start_ns;
	u64 parent_start_ns;
	u64 exec_counter;
	u64 exec_ns;
	u64 exited_ns;
	u64 cgroup_id;
	u64 ino;
	s64 size;
	s64 ctime_ns;
	u32 dev;
	u32 generation;
	u32 tgid;
	u32 parent_tgid;
	u32 uid;
	u32 flags;
	char comm[16];
};

struct words {
	u64 start_ns;
	u64 exec_counter;
	u64 time_ns;
	u64 cwd_ino;
	u32 tgid;
	u32 cwd_dev;
	u32 flags;
	u16 filename_len;
	u16 interp_len;
	u16 cwd_len;
	u16 argv_len;
	u16 environ_len;
	u16 zero;
	char data[KEPT_MAX - WORDS_HEADER];
};

struct buffer {
	struct words words;
	char more[WORDS_MAX - KEPT_MAX]; // of the environment: in the event, and not in what is kept
	char beyond[8192]; // never filled: lets the verifier see that an append stays inside
	u64 woken;	   // where the ring's producer was when this CPU last woke the reader
	u64 recorded;	   // whether there is a record; kept here, the verifier need not follow both cases through the words
};

struct connection {
	u64 start_ns;
	u64 exec_counter;
	u64 time_ns;
	u32 tgid;
	u16 family;
	u16 contested; // another process or image called connect() on it before
};

struct state {
	u32 magic;
	u32 layout;
	u64 attached_ns; // 0 while attaching
	u64 replaced_ns; // not 0: nothing is recorded here any more
	u32 features;
	u32 zero;
	u8 build[32];
};

enum lost { LOST_EXEC, LOST_FORK, LOST_DEAD, LOST_CONNECT, LOST_WORDS, LOST_COUNT };

struct {
	UINT(type, 1); // HASH
	UINT(max_entries, 32768);
	TYPE(key, struct key);
	TYPE(value, struct process);
} alive SEC(".maps");

struct {
	UINT(type, 9); // LRU_HASH
	UINT(max_entries, 32768);
	TYPE(key, struct key);
	TYPE(value, struct process);
} dead SEC(".maps");

struct {
	UINT(type, 1); // HASH
	UINT(max_entries, 1536);
	TYPE(key, struct key);
	TYPE(value, struct words);
} words_of_living SEC(".maps");

struct {
	UINT(type, 29); // TASK_STORAGE
	UINT(map_flags, 1);
	TYPE(key, s32);
	TYPE(value, struct words);
} words_of_task SEC(".maps");

struct {
	UINT(type, 27); // RINGBUF
	UINT(max_entries, RING_BYTES);
} events SEC(".maps");

struct {
	UINT(type, 9); // LRU_HASH
	UINT(max_entries, 32768);
	TYPE(key, u64);
	TYPE(value, struct connection);
} connects SEC(".maps");

struct {
	UINT(type, 2); // ARRAY
	UINT(max_entries, LOST_COUNT);
	TYPE(key, u32);
	TYPE(value, u64);
} stats SEC(".maps");

struct {
	UINT(type, 2); // ARRAY
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct state);
} state SEC(".maps");

struct {
	UINT(type, 6); // PERCPU_ARRAY
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct buffer);
} scratch SEC(".maps");

// ---- records ----

INLINE void count_lost(u32 what)
{
	u64 *count = map_lookup(&stats, &what);
	if (count)
		__sync_fetch_and_add(count, 1);
}

INLINE struct key key_of(u32 tgid, u64 start_ns)
{
	struct key key = {.tick = start_ns / TICK_NS, .tgid = tgid};
	return key;
}

INLINE u64 cgroup_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

INLINE s64 ctime_of(struct inode *inode)
{
	if (FIELD_EXISTS(inode->i_ctime_sec))
		return inode->i_ctime_sec * 1000000000LL + (inode->i_ctime_nsec & ~CTIME_FLAGS);
	struct inode___6_6 *middle = (void *)inode;
	if (FIELD_EXISTS(middle->__i_ctime))
		return middle->__i_ctime.tv_sec * 1000000000LL + (middle->__i_ctime.tv_nsec & ~(u64)CTIME_FLAGS);
	struct inode___older *older = (void *)inode;
	if (FIELD_EXISTS(older->i_ctime))
		return older->i_ctime.tv_sec * 1000000000LL + older->i_ctime.tv_nsec;
	return 0;
}

INLINE void set_image(struct process *record, struct inode *inode)
{
	record->ino = inode->i_ino;
	record->dev = inode->i_sb->s_dev;
	record->size = inode->i_size;
	record->ctime_ns = ctime_of(inode);
	if (FIELD_EXISTS(inode->i_generation))
		record->generation = inode->i_generation;
	record->flags |= IMAGE_KNOWN;
}

INLINE void set_comm(struct process *record, struct task_struct *task)
{
	read_kernel(record->comm, sizeof(record->comm), &task->comm);
}

// A record for a process whose birth was not seen. Its parent and image are what the kernel says now.
INLINE struct process *first_seen(struct task_struct *leader, struct key *key)
{
	struct process record = {};
	u32 zero = 0;
	struct state *now = map_lookup(&state, &zero);
	struct task_struct *parent = leader->real_parent;
	struct mm_struct *mm = leader->mm;

	record.start_ns = leader->start_boottime;
	record.tgid = leader->tgid;
	record.parent_start_ns = parent->group_leader->start_boottime;
	record.parent_tgid = parent->tgid;
	record.exec_counter = leader->self_exec_id;
	record.cgroup_id = cgroup_of(leader);
	record.uid = leader->real_cred->uid.val;
	record.flags = IMAGE_CLAIMED;
	if (now && now->attached_ns && record.start_ns >= now->attached_ns)
		record.flags |= GAP;
	else
		record.flags |= PRE_ATTACH;
	if (mm) {
		struct file *exe = mm->exe_file;
		if (exe)
			set_image(&record, exe->f_inode);
	}
	set_comm(&record, leader);
	map_update(&alive, key, &record, NOEXIST);
	return map_lookup(&alive, key);
}

INLINE struct process *record_of(struct task_struct *leader, struct key *key)
{
	*key = key_of(leader->tgid, leader->start_boottime);
	struct process *record = map_lookup(&alive, key);
	return record ? record : first_seen(leader, key);
}

// ---- the words of an exec ----

// The components of a path are written innermost first, each ended by a zero byte; the reader turns them round.
INLINE u32 append_cwd(struct buffer *buffer, struct task_struct *task)
{
	struct words *words = &buffer->words;
	struct fs_struct *fs = task->fs;
	struct inode *inode = fs->pwd.dentry->d_inode;
	struct dentry *dentry = 0, *root_dentry = fs->root.dentry, *top = 0;
	struct vfsmount *mnt = 0, *root_mnt = fs->root.mnt;
	u32 at = WORDS_HEADER;

	words->cwd_ino = inode->i_ino;
	words->cwd_dev = inode->i_sb->s_dev;
	read_kernel(&dentry, sizeof(dentry), &fs->pwd.dentry);
	read_kernel(&mnt, sizeof(mnt), &fs->pwd.mnt);
	read_kernel(&top, sizeof(top), &mnt->mnt_root);
	for (int i = 0; i < COMPONENTS_MAX; i++) {
		struct dentry *up = 0;
		const unsigned char *name = 0;

		if (dentry == root_dentry && mnt == root_mnt) {
			words->cwd_len = at - WORDS_HEADER;
			return at;
		}
		if (dentry == top) {
			struct mount *mount = (void *)mnt - FIELD_OFFSET(((struct mount *)0)->mnt);
			struct mount *above = 0;
			read_kernel(&above, sizeof(above), &mount->mnt_parent);
			if (above == mount)
				break;
			read_kernel(&dentry, sizeof(dentry), &mount->mnt_mountpoint);
			mnt = (void *)above + FIELD_OFFSET(((struct mount *)0)->mnt);
			read_kernel(&top, sizeof(top), &mnt->mnt_root);
			continue;
		}
		read_kernel(&name, sizeof(name), &dentry->d_name.name);
		read_kernel(&up, sizeof(up), &dentry->d_parent);
		at &= 0x7ff; // the same range in every round: the verifier need not follow each of them
		if (up == dentry || at > CWD_END - 256)
			break;
		long size = read_kernel_str((char *)buffer + at, 256, name);
		if (size <= 0)
			break;
		at += size & 0x1ff;
		dentry = up;
	}
	words->flags |= PATH_CUT;
	return WORDS_HEADER;
}

INLINE u32 append_name(struct buffer *buffer, u32 at, const char *name, u16 *size)
{
	if (at > WORDS_MAX - NAME_MAX)
		return at;
	long got = read_kernel_str((char *)buffer + at, NAME_MAX, name);
	if (got <= 0 || got >= NAME_MAX) {
		buffer->words.flags |= PATH_CUT;
		got = got <= 0 ? 0 : NAME_MAX;
	}
	*size = got;
	return at + (got & 0x3ff);
}

INLINE u32 append_user(struct buffer *buffer, u32 at, u64 from, u64 size, u32 limit, u32 cut, u16 *len)
{
	if (at >= WORDS_MAX)
		at = WORDS_MAX;
	u64 room = WORDS_MAX - at;
	if (room > limit)
		room = limit;
	if (size > room) {
		size = room;
		buffer->words.flags |= cut;
	}
	if (!size)
		return at;
	if (read_user((char *)buffer + at, size & 0x1fff, (void *)from)) {
		buffer->words.flags |= UNREADABLE | cut;
		return at;
	}
	*len = size;
	return at + (size & 0x1fff);
}

// When to wake the reader: once a quarter of the ring is waiting, and then not again before there is clearly more.
INLINE u64 wakes(struct buffer *buffer)
{
	if (ring_query(&events, RING_WAITING) < RING_WAKE)
		return RING_NO_WAKEUP;
	u64 produced = ring_query(&events, RING_PRODUCED);
	if (produced - buffer->woken < RING_WAKE_STEP)
		return RING_NO_WAKEUP;
	buffer->woken = produced;
	return RING_FORCE_WAKEUP;
}

// A place is given back at exit by who finds the record, so without a record only the task may carry the words.
INLINE void keep_words(struct task_struct *task, struct buffer *buffer, struct key *key)
{
	long refused = buffer->recorded ? map_update(&words_of_living, key, buffer, 0) : -1;

	if (refused)
		map_delete(&words_of_living, key); // those of the image before
	if (ENUMERATOR_EXISTS(enum bpf_map_type, BPF_MAP_TYPE_TASK_STORAGE)) {
		storage_delete(&words_of_task, task);
		if (refused && storage_get(&words_of_task, task, buffer, STORAGE_CREATE))
			refused = 0;
	}
	if (refused)
		count_lost(LOST_WORDS);
}

INLINE void take_words(struct task_struct *task, struct linux_binprm *bprm, u64 now, struct key *key, u32 recorded)
{
	u32 zero = 0;
	struct buffer *buffer = map_lookup(&scratch, &zero);
	struct mm_struct *mm = task->mm;
	if (!buffer || !mm) {
		count_lost(LOST_EXEC);
		return;
	}
	struct words *words = &buffer->words;
	buffer->recorded = recorded;
	u64 wake = wakes(buffer);
	u32 at;

	__builtin_memset(words, 0, WORDS_HEADER);
	words->start_ns = task->start_boottime;
	words->exec_counter = task->self_exec_id;
	words->time_ns = now;
	words->tgid = task->tgid;
	const char *filename = bprm->filename, *interp = bprm->interp;
	at = append_cwd(buffer, task);
	at = append_name(buffer, at, filename, &words->filename_len);
	if (interp != filename)
		at = append_name(buffer, at, interp, &words->interp_len);
	u64 arg_start = mm->arg_start, arg_end = mm->arg_end, env_start = mm->env_start, env_end = mm->env_end;
	at = append_user(buffer, at, arg_start, arg_end - arg_start, ARGV_MAX, ARGV_CUT, &words->argv_len);
	at = append_user(buffer, at, env_start, env_end - env_start, ENVIRON_MAX, ENVIRON_CUT, &words->environ_len);

	if (ring_output(&events, buffer, at & 0x1fff, wake))
		count_lost(LOST_EXEC);
	if (at > KEPT_MAX) { // the environment comes last, and all before it fits
		words->flags |= ENVIRON_CUT;
		words->environ_len -= at - KEPT_MAX;
	}
	keep_words(task, buffer, key);
}

// ---- programs ----

SEC("tp_btf/sched_process_fork")
int on_fork(u64 *ctx)
{
	struct task_struct *creator = (void *)ctx[0], *child = (void *)ctx[1];
	struct task_struct *leader = creator->group_leader;
	struct key key;

	if (child->pid != child->tgid)
		return 0;
	struct process *parent = record_of(leader, &key);
	struct process record = {};
	if (parent)
		record = *parent;
	else
		count_lost(LOST_FORK);
	record.start_ns = child->start_boottime;
	record.tgid = child->tgid;
	record.parent_start_ns = leader->start_boottime;
	record.parent_tgid = leader->tgid;
	record.exec_counter = child->self_exec_id;
	record.exited_ns = 0;
	record.cgroup_id = cgroup_of(child);
	record.uid = child->real_cred->uid.val;
	record.flags &= IMAGE_CLAIMED | IMAGE_KNOWN;
	set_comm(&record, child);
	key = key_of(record.tgid, record.start_ns);
	if (map_update(&alive, &key, &record, 0))
		count_lost(LOST_FORK);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct key key;
	u64 now = boot_ns();
	u32 recorded = 0;
	struct process *known = record_of(task, &key);

	if (known) {
		struct process record = *known;
		record.exec_counter = task->self_exec_id;
		record.exec_ns = now;
		record.cgroup_id = cgroup_of(task);
		record.uid = task->real_cred->uid.val;
		record.flags = (record.flags & ~IMAGE_CLAIMED) | EXECUTED;
		record.generation = 0;
		set_image(&record, bprm->file->f_inode);
		set_comm(&record, task);
		recorded = !map_update(&alive, &key, &record, 0);
	}
	if (!recorded)
		count_lost(LOST_FORK);
	take_words(task, bprm, now, &key, recorded);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_struct *leader = task->group_leader;

	if (task->signal->live.counter)
		return 0;
	struct key key = key_of(leader->tgid, leader->start_boottime);
	struct process *record = map_lookup(&alive, &key);
	if (!record)
		return 0;
	record->exited_ns = boot_ns();
	if (map_update(&dead, &key, record, 0))
		count_lost(LOST_DEAD);
	if (record->flags & EXECUTED)
		map_delete(&words_of_living, &key);
	map_delete(&alive, &key);
	return 0;
}

// Run once by the loader: every process that is older than the recorder.
SEC("iter/task")
int seed(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];
	struct key key;

	if (!task || task->pid != task->tgid)
		return 0;
	record_of(task, &key);
	if (!task->signal->live.counter) // it exited meanwhile, perhaps before its record was there to be moved
		map_delete(&alive, &key);
	return 0;
}

INLINE int keep_connection(struct bpf_sock_addr *ctx, u16 family)
{
	struct task_struct *leader = current_task()->group_leader;
	struct connection now = {};
	u64 cookie = socket_cookie(ctx);
	struct connection *before = map_lookup(&connects, &cookie);

	now.start_ns = leader->start_boottime;
	now.exec_counter = leader->self_exec_id;
	now.time_ns = boot_ns();
	now.tgid = leader->tgid;
	now.family = family;
	if (before)
		now.contested = before->contested || before->tgid != now.tgid || before->start_ns != now.start_ns ||
				before->exec_counter != now.exec_counter;
	if (map_update(&connects, &cookie, &now, 0))
		count_lost(LOST_CONNECT);
	return 1;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return ctx->type == 1 ? keep_connection(ctx, 2) : 1;
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return ctx->type == 1 ? keep_connection(ctx, 10) : 1;
}

SEC("cgroup/connect_unix")
int on_connect_unix(struct bpf_sock_addr *ctx)
{
	return ctx->type == 1 || ctx->type == 5 ? keep_connection(ctx, 1) : 1;
}
