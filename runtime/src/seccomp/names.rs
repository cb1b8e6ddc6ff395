// SPDX-License-Identifier: Apache-2.0
//! The table of system calls: every name with its number in each ABI.
//!
//! This file is longer than others because it is data: one line per call, to be compared with the kernel's own
//! `syscall_*.tbl`. Numbers up to Linux 6.17 (469). `tests/seccomp/tables.rs` holds it against the `syscalls` crate,
//! the kernel's headers and libseccomp.
//!
//! It is stored without a single pointer (one blob of names, an array of offsets, an array of numbers), so that it
//! stays in the file's read-only pages: a static-pie binary would have to relocate a table of `&str` at every start.

#![forbid(unsafe_code)]

/// How many ABIs the table has numbers for.
pub(super) const COLUMNS: usize = 6;

/// What stands for "no such call in this ABI".
pub(super) const NONE: u16 = u16::MAX;

/// From here on a number is one of ARM's private calls, 0x0f0000 and up (arch/arm/include/uapi/asm/unistd.h).
pub(super) const ARM_PRIVATE: u16 = 0xf000;

/// One number; `_` where the ABI does not have the call.
macro_rules! number {
    (_) => {
        NONE
    };
    ($nr:literal) => {
        $nr
    };
}

macro_rules! table {
    ($($name:ident $x86_64:tt $x86:tt $x32:tt $aarch64:tt $arm:tt $riscv64:tt $multiplexed:tt;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// The numbers, in the order of `arch::Abi::column`.
        pub(super) static NUMBERS: [[u16; COLUMNS]; ROWS] = [$([
            number!($x86_64), number!($x86), number!($x32), number!($aarch64), number!($arm), number!($riscv64),
        ]),*];

        /// 100 + the first argument of socketcall(2), 200 + that of ipc(2), for the calls that i386 also makes so.
        pub(super) static MULTIPLEXED: [u16; ROWS] = [$(number!($multiplexed)),*];
    };
}

/// How many calls there are.
pub(super) const ROWS: usize = NAMES.len();

static BLOB: [u8; BLOB_LEN] = blob();
static OFFSETS: [u16; ROWS + 1] = offsets();
const BLOB_LEN: usize = offsets()[ROWS] as usize;

const fn offsets() -> [u16; ROWS + 1] {
    let mut offsets = [0; ROWS + 1];
    let mut row = 0;
    while row < ROWS {
        offsets[row + 1] = offsets[row] + NAMES[row].len() as u16;
        row += 1;
    }
    offsets
}

const fn blob() -> [u8; BLOB_LEN] {
    let (mut blob, mut at, mut row) = ([0; BLOB_LEN], 0, 0);
    while row < ROWS {
        let (name, mut i) = (NAMES[row].as_bytes(), 0);
        while i < name.len() {
            blob[at] = name[i];
            (at, i) = (at + 1, i + 1);
        }
        row += 1;
    }
    blob
}

pub(super) fn name(row: usize) -> &'static [u8] {
    &BLOB[usize::from(OFFSETS[row])..usize::from(OFFSETS[row + 1])]
}

/// The row of a name.
pub(super) fn row(wanted: &str) -> Option<usize> {
    let (mut low, mut high) = (0, ROWS);
    while low < high {
        let middle = usize::midpoint(low, high);
        match name(middle).cmp(wanted.as_bytes()) {
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

// No number means that another architecture has the call; `0xf00n` is ARM's private call n.
table! {
//  name                           x86_64    x86    x32 aarch64   arm riscv64  multiplexed
    _llseek                             _    140      _      _    140      _      _;
    _newselect                          _    142      _      _    142      _      _;
    _sysctl                           156    149      _      _    149      _      _;
    accept                             43      _     43    202    285    202    105;
    accept4                           288    364    288    242    366    242    118;
    access                             21     33     21      _     33      _      _;
    acct                              163     51    163     89     51     89      _;
    add_key                           248    286    248    217    309    217      _;
    adjtimex                          159    124    159    171    124    171      _;
    afs_syscall                       183    137    183      _      _      _      _;
    alarm                              37     27     37      _      _      _      _;
    arch_prctl                        158    384    158      _      _      _      _;
    arm_fadvise64_64                    _      _      _      _    270      _      _;
    arm_sync_file_range                 _      _      _      _    341      _      _;
    bdflush                             _    134      _      _    134      _      _;
    bind                               49    361     49    200    282    200    102;
    bpf                               321    357    321    280    386    280      _;
    break                               _     17      _      _      _      _      _;
    breakpoint                          _      _      _      _ 0xf001      _      _;
    brk                                12     45     12    214     45    214      _;
    cachectl                            _      _      _      _      _      _      _;
    cacheflush                          _      _      _      _ 0xf002      _      _;
    cachestat                         451    451    451    451    451    451      _;
    capget                            125    184    125     90    184     90      _;
    capset                            126    185    126     91    185     91      _;
    chdir                              80     12     80     49     12     49      _;
    chmod                              90     15     90      _     15      _      _;
    chown                              92    182     92      _    182      _      _;
    chown32                             _    212      _      _    212      _      _;
    chroot                            161     61    161     51     61     51      _;
    clock_adjtime                     305    343    305    266    372    266      _;
    clock_adjtime64                     _    405      _      _    405      _      _;
    clock_getres                      229    266    229    114    264    114      _;
    clock_getres_time64                 _    406      _      _    406      _      _;
    clock_gettime                     228    265    228    113    263    113      _;
    clock_gettime64                     _    403      _      _    403      _      _;
    clock_nanosleep                   230    267    230    115    265    115      _;
    clock_nanosleep_time64              _    407      _      _    407      _      _;
    clock_settime                     227    264    227    112    262    112      _;
    clock_settime64                     _    404      _      _    404      _      _;
    clone                              56    120     56    220    120    220      _;
    clone3                            435    435    435    435    435    435      _;
    close                               3      6      3     57      6     57      _;
    close_range                       436    436    436    436    436    436      _;
    connect                            42    362     42    203    283    203    103;
    copy_file_range                   326    377    326    285    391    285      _;
    creat                              85      8     85      _      8      _      _;
    create_module                     174    127      _      _      _      _      _;
    delete_module                     176    129    176    106    129    106      _;
    dup                                32     41     32     23     41     23      _;
    dup2                               33     63     33      _     63      _      _;
    dup3                              292    330    292     24    358     24      _;
    epoll_create                      213    254    213      _    250      _      _;
    epoll_create1                     291    329    291     20    357     20      _;
    epoll_ctl                         233    255    233     21    251     21      _;
    epoll_ctl_old                     214      _      _      _      _      _      _;
    epoll_pwait                       281    319    281     22    346     22      _;
    epoll_pwait2                      441    441    441    441    441    441      _;
    epoll_wait                        232    256    232      _    252      _      _;
    epoll_wait_old                    215      _      _      _      _      _      _;
    eventfd                           284    323    284      _    351      _      _;
    eventfd2                          290    328    290     19    356     19      _;
    execv                               _      _      _      _      _      _      _;
    execve                             59     11    520    221     11    221      _;
    execveat                          322    358    545    281    387    281      _;
    exit                               60      1     60     93      1     93      _;
    exit_group                        231    252    231     94    248     94      _;
    faccessat                         269    307    269     48    334     48      _;
    faccessat2                        439    439    439    439    439    439      _;
    fadvise64                         221    250    221    223      _    223      _;
    fadvise64_64                        _    272      _      _      _      _      _;
    fallocate                         285    324    285     47    352     47      _;
    fanotify_init                     300    338    300    262    367    262      _;
    fanotify_mark                     301    339    301    263    368    263      _;
    fchdir                             81    133     81     50    133     50      _;
    fchmod                             91     94     91     52     94     52      _;
    fchmodat                          268    306    268     53    333     53      _;
    fchmodat2                         452    452    452    452    452    452      _;
    fchown                             93     95     93     55     95     55      _;
    fchown32                            _    207      _      _    207      _      _;
    fchownat                          260    298    260     54    325     54      _;
    fcntl                              72     55     72     25     55     25      _;
    fcntl64                             _    221      _      _    221      _      _;
    fdatasync                          75    148     75     83    148     83      _;
    fgetxattr                         193    231    193     10    231     10      _;
    file_getattr                      468    468    468    468    468    468      _;
    file_setattr                      469    469    469    469    469    469      _;
    finit_module                      313    350    313    273    379    273      _;
    flistxattr                        196    234    196     13    234     13      _;
    flock                              73    143     73     32    143     32      _;
    fork                               57      2     57      _      2      _      _;
    fremovexattr                      199    237    199     16    237     16      _;
    fsconfig                          431    431    431    431    431    431      _;
    fsetxattr                         190    228    190      7    228      7      _;
    fsmount                           432    432    432    432    432    432      _;
    fsopen                            430    430    430    430    430    430      _;
    fspick                            433    433    433    433    433    433      _;
    fstat                               5    108      5     80    108     80      _;
    fstat64                             _    197      _      _    197      _      _;
    fstatat64                           _    300      _      _    327      _      _;
    fstatfs                           138    100    138     44    100     44      _;
    fstatfs64                           _    269      _      _    267      _      _;
    fsync                              74    118     74     82    118     82      _;
    ftime                               _     35      _      _      _      _      _;
    ftruncate                          77     93     77     46     93     46      _;
    ftruncate64                         _    194      _      _    194      _      _;
    futex                             202    240    202     98    240     98      _;
    futex_requeue                     456    456    456    456    456    456      _;
    futex_time64                        _    422      _      _    422      _      _;
    futex_wait                        455    455    455    455    455    455      _;
    futex_waitv                       449    449    449    449    449    449      _;
    futex_wake                        454    454    454    454    454    454      _;
    futimesat                         261    299    261      _    326      _      _;
    get_kernel_syms                   177    130      _      _      _      _      _;
    get_mempolicy                     239    275    239    236    320    236      _;
    get_robust_list                   274    312    531    100    339    100      _;
    get_thread_area                   211    244      _      _      _      _      _;
    get_tls                             _      _      _      _ 0xf006      _      _;
    getcpu                            309    318    309    168    345    168      _;
    getcwd                             79    183     79     17    183     17      _;
    getdents                           78    141     78      _    141      _      _;
    getdents64                        217    220    217     61    217     61      _;
    getdomainname                       _      _      _      _      _      _      _;
    getegid                           108     50    108    177     50    177      _;
    getegid32                           _    202      _      _    202      _      _;
    geteuid                           107     49    107    175     49    175      _;
    geteuid32                           _    201      _      _    201      _      _;
    getgid                            104     47    104    176     47    176      _;
    getgid32                            _    200      _      _    200      _      _;
    getgroups                         115     80    115    158     80    158      _;
    getgroups32                         _    205      _      _    205      _      _;
    getitimer                          36    105     36    102    105    102      _;
    getpagesize                         _      _      _      _      _      _      _;
    getpeername                        52    368     52    205    287    205    107;
    getpgid                           121    132    121    155    132    155      _;
    getpgrp                           111     65    111      _     65      _      _;
    getpid                             39     20     39    172     20    172      _;
    getpmsg                           181    188    181      _      _      _      _;
    getppid                           110     64    110    173     64    173      _;
    getpriority                       140     96    140    141     96    141      _;
    getrandom                         318    355    318    278    384    278      _;
    getresgid                         120    171    120    150    171    150      _;
    getresgid32                         _    211      _      _    211      _      _;
    getresuid                         118    165    118    148    165    148      _;
    getresuid32                         _    209      _      _    209      _      _;
    getrlimit                          97     76     97    163      _    163      _;
    getrusage                          98     77     98    165     77    165      _;
    getsid                            124    147    124    156    147    156      _;
    getsockname                        51    367     51    204    286    204    106;
    getsockopt                         55    365    542    209    295    209    115;
    gettid                            186    224    186    178    224    178      _;
    gettimeofday                       96     78     96    169     78    169      _;
    getuid                            102     24    102    174     24    174      _;
    getuid32                            _    199      _      _    199      _      _;
    getxattr                          191    229    191      8    229      8      _;
    getxattrat                        464    464    464    464    464    464      _;
    gtty                                _     32      _      _      _      _      _;
    idle                                _    112      _      _      _      _      _;
    init_module                       175    128    175    105    128    105      _;
    inotify_add_watch                 254    292    254     27    317     27      _;
    inotify_init                      253    291    253      _    316      _      _;
    inotify_init1                     294    332    294     26    360     26      _;
    inotify_rm_watch                  255    293    255     28    318     28      _;
    io_cancel                         210    249    210      3    247      3      _;
    io_destroy                        207    246    207      1    244      1      _;
    io_getevents                      208    247    208      4    245      4      _;
    io_pgetevents                     333    385    333    292    399    292      _;
    io_pgetevents_time64                _    416      _      _    416      _      _;
    io_setup                          206    245    543      0    243      0      _;
    io_submit                         209    248    544      2    246      2      _;
    io_uring_enter                    426    426    426    426    426    426      _;
    io_uring_register                 427    427    427    427    427    427      _;
    io_uring_setup                    425    425    425    425    425    425      _;
    ioctl                              16     54    514     29     54     29      _;
    ioperm                            173    101    173      _      _      _      _;
    iopl                              172    110    172      _      _      _      _;
    ioprio_get                        252    290    252     31    315     31      _;
    ioprio_set                        251    289    251     30    314     30      _;
    ipc                                 _    117      _      _      _      _      _;
    kcmp                              312    349    312    272    378    272      _;
    kern_features                       _      _      _      _      _      _      _;
    kexec_file_load                   320      _    320    294    401    294      _;
    kexec_load                        246    283    528    104    347    104      _;
    keyctl                            250    288    250    219    311    219      _;
    kill                               62     37     62    129     37    129      _;
    landlock_add_rule                 445    445    445    445    445    445      _;
    landlock_create_ruleset           444    444    444    444    444    444      _;
    landlock_restrict_self            446    446    446    446    446    446      _;
    lchown                             94     16     94      _     16      _      _;
    lchown32                            _    198      _      _    198      _      _;
    lgetxattr                         192    230    192      9    230      9      _;
    link                               86      9     86      _      9      _      _;
    linkat                            265    303    265     37    330     37      _;
    listen                             50    363     50    201    284    201    104;
    listmount                         458    458    458    458    458    458      _;
    listxattr                         194    232    194     11    232     11      _;
    listxattrat                       465    465    465    465    465    465      _;
    llistxattr                        195    233    195     12    233     12      _;
    llseek                              _      _      _      _      _      _      _;
    lock                                _     53      _      _      _      _      _;
    lookup_dcookie                    212    253    212     18    249     18      _;
    lremovexattr                      198    236    198     15    236     15      _;
    lseek                               8     19      8     62     19     62      _;
    lsetxattr                         189    227    189      6    227      6      _;
    lsm_get_self_attr                 459    459    459    459    459    459      _;
    lsm_list_modules                  461    461    461    461    461    461      _;
    lsm_set_self_attr                 460    460    460    460    460    460      _;
    lstat                               6    107      6      _    107      _      _;
    lstat64                             _    196      _      _    196      _      _;
    madvise                            28    219     28    233    220    233      _;
    map_shadow_stack                  453    453      _    453    453    453      _;
    mbind                             237    274    237    235    319    235      _;
    membarrier                        324    375    324    283    389    283      _;
    memfd_create                      319    356    319    279    385    279      _;
    memfd_secret                      447    447    447    447      _    447      _;
    memory_ordering                     _      _      _      _      _      _      _;
    migrate_pages                     256    294    256    238    400    238      _;
    mincore                            27    218     27    232    219    232      _;
    mkdir                              83     39     83      _     39      _      _;
    mkdirat                           258    296    258     34    323     34      _;
    mknod                             133     14    133      _     14      _      _;
    mknodat                           259    297    259     33    324     33      _;
    mlock                             149    150    149    228    150    228      _;
    mlock2                            325    376    325    284    390    284      _;
    mlockall                          151    152    151    230    152    230      _;
    mmap                                9     90      9    222      _    222      _;
    mmap2                               _    192      _      _    192      _      _;
    modify_ldt                        154    123    154      _      _      _      _;
    mount                             165     21    165     40     21     40      _;
    mount_setattr                     442    442    442    442    442    442      _;
    move_mount                        429    429    429    429    429    429      _;
    move_pages                        279    317    533    239    344    239      _;
    mprotect                           10    125     10    226    125    226      _;
    mpx                                 _     56      _      _      _      _      _;
    mq_getsetattr                     245    282    245    185    279    185      _;
    mq_notify                         244    281    527    184    278    184      _;
    mq_open                           240    277    240    180    274    180      _;
    mq_timedreceive                   243    280    243    183    277    183      _;
    mq_timedreceive_time64              _    419      _      _    419      _      _;
    mq_timedsend                      242    279    242    182    276    182      _;
    mq_timedsend_time64                 _    418      _      _    418      _      _;
    mq_unlink                         241    278    241    181    275    181      _;
    mremap                             25    163     25    216    163    216      _;
    mseal                             462    462    462    462    462    462      _;
    msgctl                             71    402     71    187    304    187    214;
    msgget                             68    399     68    186    303    186    213;
    msgrcv                             70    401     70    188    302    188    212;
    msgsnd                             69    400     69    189    301    189    211;
    msync                              26    144     26    227    144    227      _;
    multiplexer                         _      _      _      _      _      _      _;
    munlock                           150    151    150    229    151    229      _;
    munlockall                        152    153    152    231    153    231      _;
    munmap                             11     91     11    215     91    215      _;
    name_to_handle_at                 303    341    303    264    370    264      _;
    nanosleep                          35    162     35    101    162    101      _;
    newfstatat                        262      _    262     79      _     79      _;
    nfsservctl                        180    169      _     42    169     42      _;
    nice                                _     34      _      _     34      _      _;
    oldfstat                            _     28      _      _      _      _      _;
    oldlstat                            _     84      _      _      _      _      _;
    oldolduname                         _     59      _      _      _      _      _;
    oldstat                             _     18      _      _      _      _      _;
    olduname                            _    109      _      _      _      _      _;
    open                                2      5      2      _      5      _      _;
    open_by_handle_at                 304    342    304    265    371    265      _;
    open_tree                         428    428    428    428    428    428      _;
    open_tree_attr                    467    467    467    467    467    467      _;
    openat                            257    295    257     56    322     56      _;
    openat2                           437    437    437    437    437    437      _;
    pause                              34     29     34      _     29      _      _;
    pciconfig_iobase                    _      _      _      _    271      _      _;
    pciconfig_read                      _      _      _      _    272      _      _;
    pciconfig_write                     _      _      _      _    273      _      _;
    perf_event_open                   298    336    298    241    364    241      _;
    perfctr                             _      _      _      _      _      _      _;
    personality                       135    136    135     92    136     92      _;
    pidfd_getfd                       438    438    438    438    438    438      _;
    pidfd_open                        434    434    434    434    434    434      _;
    pidfd_send_signal                 424    424    424    424    424    424      _;
    pipe                               22     42     22      _     42      _      _;
    pipe2                             293    331    293     59    359     59      _;
    pivot_root                        155    217    155     41    218     41      _;
    pkey_alloc                        330    381    330    289    395    289      _;
    pkey_free                         331    382    331    290    396    290      _;
    pkey_mprotect                     329    380    329    288    394    288      _;
    poll                                7    168      7      _    168      _      _;
    ppoll                             271    309    271     73    336     73      _;
    ppoll_time64                        _    414      _      _    414      _      _;
    prctl                             157    172    157    167    172    167      _;
    pread64                            17    180     17     67    180     67      _;
    preadv                            295    333    534     69    361     69      _;
    preadv2                           327    378    546    286    392    286      _;
    prlimit64                         302    340    302    261    369    261      _;
    process_madvise                   440    440    440    440    440    440      _;
    process_mrelease                  448    448    448    448    448    448      _;
    process_vm_readv                  310    347    539    270    376    270      _;
    process_vm_writev                 311    348    540    271    377    271      _;
    prof                                _     44      _      _      _      _      _;
    profil                              _     98      _      _      _      _      _;
    pselect6                          270    308    270     72    335     72      _;
    pselect6_time64                     _    413      _      _    413      _      _;
    ptrace                            101     26    521    117     26    117      _;
    putpmsg                           182    189    182      _      _      _      _;
    pwrite64                           18    181     18     68    181     68      _;
    pwritev                           296    334    535     70    362     70      _;
    pwritev2                          328    379    547    287    393    287      _;
    query_module                      178    167      _      _      _      _      _;
    quotactl                          179    131    179     60    131     60      _;
    quotactl_fd                       443    443    443    443    443    443      _;
    read                                0      3      0     63      3     63      _;
    readahead                         187    225    187    213    225    213      _;
    readdir                             _     89      _      _      _      _      _;
    readlink                           89     85     89      _     85      _      _;
    readlinkat                        267    305    267     78    332     78      _;
    readv                              19    145    515     65    145     65      _;
    reboot                            169     88    169    142     88    142      _;
    recv                                _      _      _      _    291      _    110;
    recvfrom                           45    371    517    207    292    207    112;
    recvmmsg                          299    337    537    243    365    243    119;
    recvmmsg_time64                     _    417      _      _    417      _      _;
    recvmsg                            47    372    519    212    297    212    117;
    remap_file_pages                  216    257    216    234    253    234      _;
    removexattr                       197    235    197     14    235     14      _;
    removexattrat                     466    466    466    466    466    466      _;
    rename                             82     38     82      _     38      _      _;
    renameat                          264    302    264     38    329      _      _;
    renameat2                         316    353    316    276    382    276      _;
    request_key                       249    287    249    218    310    218      _;
    restart_syscall                   219      0    219    128      0    128      _;
    riscv_flush_icache                  _      _      _      _      _    259      _;
    riscv_hwprobe                       _      _      _      _      _    258      _;
    rmdir                              84     40     84      _     40      _      _;
    rseq                              334    386    334    293    398    293      _;
    rt_sigaction                       13    174    512    134    174    134      _;
    rt_sigpending                     127    176    522    136    176    136      _;
    rt_sigprocmask                     14    175     14    135    175    135      _;
    rt_sigqueueinfo                   129    178    524    138    178    138      _;
    rt_sigreturn                       15    173    513    139    173    139      _;
    rt_sigsuspend                     130    179    130    133    179    133      _;
    rt_sigtimedwait                   128    177    523    137    177    137      _;
    rt_sigtimedwait_time64              _    421      _      _    421      _      _;
    rt_tgsigqueueinfo                 297    335    536    240    363    240      _;
    rtas                                _      _      _      _      _      _      _;
    s390_guarded_storage                _      _      _      _      _      _      _;
    s390_pci_mmio_read                  _      _      _      _      _      _      _;
    s390_pci_mmio_write                 _      _      _      _      _      _      _;
    s390_runtime_instr                  _      _      _      _      _      _      _;
    s390_sthyi                          _      _      _      _      _      _      _;
    sched_get_priority_max            146    159    146    125    159    125      _;
    sched_get_priority_min            147    160    147    126    160    126      _;
    sched_getaffinity                 204    242    204    123    242    123      _;
    sched_getattr                     315    352    315    275    381    275      _;
    sched_getparam                    143    155    143    121    155    121      _;
    sched_getscheduler                145    157    145    120    157    120      _;
    sched_rr_get_interval             148    161    148    127    161    127      _;
    sched_rr_get_interval_time64        _    423      _      _    423      _      _;
    sched_setaffinity                 203    241    203    122    241    122      _;
    sched_setattr                     314    351    314    274    380    274      _;
    sched_setparam                    142    154    142    118    154    118      _;
    sched_setscheduler                144    156    144    119    156    119      _;
    sched_yield                        24    158     24    124    158    124      _;
    seccomp                           317    354    317    277    383    277      _;
    security                          185      _    185      _      _      _      _;
    select                             23     82     23      _      _      _      _;
    semctl                             66    394     66    191    300    191    203;
    semget                             64    393     64    190    299    190    202;
    semop                              65      _     65    193    298    193    201;
    semtimedop                        220      _    220    192    312    192    204;
    semtimedop_time64                   _    420      _      _    420      _      _;
    send                                _      _      _      _    289      _    109;
    sendfile                           40    187     40     71    187     71      _;
    sendfile64                          _    239      _      _    239      _      _;
    sendmmsg                          307    345    538    269    374    269    120;
    sendmsg                            46    370    518    211    296    211    116;
    sendto                             44    369     44    206    290    206    111;
    set_mempolicy                     238    276    238    237    321    237      _;
    set_mempolicy_home_node           450    450    450    450    450    450      _;
    set_robust_list                   273    311    530     99    338     99      _;
    set_thread_area                   205    243      _      _      _      _      _;
    set_tid_address                   218    258    218     96    256     96      _;
    set_tls                             _      _      _      _ 0xf005      _      _;
    setdomainname                     171    121    171    162    121    162      _;
    setfsgid                          123    139    123    152    139    152      _;
    setfsgid32                          _    216      _      _    216      _      _;
    setfsuid                          122    138    122    151    138    151      _;
    setfsuid32                          _    215      _      _    215      _      _;
    setgid                            106     46    106    144     46    144      _;
    setgid32                            _    214      _      _    214      _      _;
    setgroups                         116     81    116    159     81    159      _;
    setgroups32                         _    206      _      _    206      _      _;
    sethostname                       170     74    170    161     74    161      _;
    setitimer                          38    104     38    103    104    103      _;
    setns                             308    346    308    268    375    268      _;
    setpgid                           109     57    109    154     57    154      _;
    setpriority                       141     97    141    140     97    140      _;
    setregid                          114     71    114    143     71    143      _;
    setregid32                          _    204      _      _    204      _      _;
    setresgid                         119    170    119    149    170    149      _;
    setresgid32                         _    210      _      _    210      _      _;
    setresuid                         117    164    117    147    164    147      _;
    setresuid32                         _    208      _      _    208      _      _;
    setreuid                          113     70    113    145     70    145      _;
    setreuid32                          _    203      _      _    203      _      _;
    setrlimit                         160     75    160    164     75    164      _;
    setsid                            112     66    112    157     66    157      _;
    setsockopt                         54    366    541    208    294    208    114;
    settimeofday                      164     79    164    170     79    170      _;
    setuid                            105     23    105    146     23    146      _;
    setuid32                            _    213      _      _    213      _      _;
    setxattr                          188    226    188      5    226      5      _;
    setxattrat                        463    463    463    463    463    463      _;
    sgetmask                            _     68      _      _      _      _      _;
    shmat                              30    397     30    196    305    196    221;
    shmctl                             31    396     31    195    308    195    224;
    shmdt                              67    398     67    197    306    197    222;
    shmget                             29    395     29    194    307    194    223;
    shutdown                           48    373     48    210    293    210    113;
    sigaction                           _     67      _      _     67      _      _;
    sigaltstack                       131    186    525    132    186    132      _;
    signal                              _     48      _      _      _      _      _;
    signalfd                          282    321    282      _    349      _      _;
    signalfd4                         289    327    289     74    355     74      _;
    sigpending                          _     73      _      _     73      _      _;
    sigprocmask                         _    126      _      _    126      _      _;
    sigreturn                           _    119      _      _    119      _      _;
    sigsuspend                          _     72      _      _     72      _      _;
    socket                             41    359     41    198    281    198    101;
    socketcall                          _    102      _      _      _      _      _;
    socketpair                         53    360     53    199    288    199    108;
    splice                            275    313    275     76    340     76      _;
    spu_create                          _      _      _      _      _      _      _;
    spu_run                             _      _      _      _      _      _      _;
    ssetmask                            _     69      _      _      _      _      _;
    stat                                4    106      4      _    106      _      _;
    stat64                              _    195      _      _    195      _      _;
    statfs                            137     99    137     43     99     43      _;
    statfs64                            _    268      _      _    266      _      _;
    statmount                         457    457    457    457    457    457      _;
    statx                             332    383    332    291    397    291      _;
    stime                               _     25      _      _      _      _      _;
    stty                                _     31      _      _      _      _      _;
    subpage_prot                        _      _      _      _      _      _      _;
    swapcontext                         _      _      _      _      _      _      _;
    swapoff                           168    115    168    225    115    225      _;
    swapon                            167     87    167    224     87    224      _;
    switch_endian                       _      _      _      _      _      _      _;
    symlink                            88     83     88      _     83      _      _;
    symlinkat                         266    304    266     36    331     36      _;
    sync                              162     36    162     81     36     81      _;
    sync_file_range                   277    314    277     84      _     84      _;
    sync_file_range2                    _      _      _      _      _      _      _;
    syncfs                            306    344    306    267    373    267      _;
    sys_debug_setcontext                _      _      _      _      _      _      _;
    syscall                             _      _      _      _      _      _      _;
    sysfs                             139    135    139      _    135      _      _;
    sysinfo                            99    116     99    179    116    179      _;
    syslog                            103    103    103    116    103    116      _;
    sysmips                             _      _      _      _      _      _      _;
    tee                               276    315    276     77    342     77      _;
    tgkill                            234    270    234    131    268    131      _;
    time                              201     13    201      _      _      _      _;
    timer_create                      222    259    526    107    257    107      _;
    timer_delete                      226    263    226    111    261    111      _;
    timer_getoverrun                  225    262    225    109    260    109      _;
    timer_gettime                     224    261    224    108    259    108      _;
    timer_gettime64                     _    408      _      _    408      _      _;
    timer_settime                     223    260    223    110    258    110      _;
    timer_settime64                     _    409      _      _    409      _      _;
    timerfd                             _      _      _      _      _      _      _;
    timerfd_create                    283    322    283     85    350     85      _;
    timerfd_gettime                   287    326    287     87    354     87      _;
    timerfd_gettime64                   _    410      _      _    410      _      _;
    timerfd_settime                   286    325    286     86    353     86      _;
    timerfd_settime64                   _    411      _      _    411      _      _;
    times                             100     43    100    153     43    153      _;
    tkill                             200    238    200    130    238    130      _;
    truncate                           76     92     76     45     92     45      _;
    truncate64                          _    193      _      _    193      _      _;
    tuxcall                           184      _    184      _      _      _      _;
    ugetrlimit                          _    191      _      _    191      _      _;
    ulimit                              _     58      _      _      _      _      _;
    umask                              95     60     95    166     60    166      _;
    umount                              _     22      _      _      _      _      _;
    umount2                           166     52    166     39     52     39      _;
    uname                              63    122     63    160    122    160      _;
    unlink                             87     10     87      _     10      _      _;
    unlinkat                          263    301    263     35    328     35      _;
    unshare                           272    310    272     97    337     97      _;
    uprobe                            336      _      _      _      _      _      _;
    uretprobe                         335      _      _      _      _      _      _;
    uselib                            134     86      _      _     86      _      _;
    userfaultfd                       323    374    323    282    388    282      _;
    usr26                               _      _      _      _ 0xf003      _      _;
    usr32                               _      _      _      _ 0xf004      _      _;
    ustat                             136     62    136      _     62      _      _;
    utime                             132     30    132      _      _      _      _;
    utimensat                         280    320    280     88    348     88      _;
    utimensat_time64                    _    412      _      _    412      _      _;
    utimes                            235    271    235      _    269      _      _;
    utrap_install                       _      _      _      _      _      _      _;
    vfork                              58    190     58      _    190      _      _;
    vhangup                           153    111    153     58    111     58      _;
    vm86                                _    166      _      _      _      _      _;
    vm86old                             _    113      _      _      _      _      _;
    vmsplice                          278    316    532     75    343     75      _;
    vserver                           236    273      _      _    313      _      _;
    wait4                              61    114     61    260    114    260      _;
    waitid                            247    284    529     95    280     95      _;
    waitpid                             _      7      _      _      _      _      _;
    write                               1      4      1     64      4     64      _;
    writev                             20    146    516     66    146     66      _;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(row(name), Some(at));
            assert_eq!(super::name(at), name.as_bytes());
        }
        for name in ["", "a", "zzz", "writ", "writevv", "Read"] {
            assert_eq!(row(name), None, "{name}");
        }
    }
}
