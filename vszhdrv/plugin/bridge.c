/* Registers core.zhdrv and hands every call of it to Python: only a native library can own a VapourSynth namespace.
 *
 * A call takes four steps:
 *   1. VapourSynth calls forward() below with the arguments, already checked against the table.
 *   2. forward() finds the interpreter that runs in this process, takes its lock, notes the call as this thread's
 *      current one, and calls vszhdrv.plugin.dispatch.forward(name).
 *   3. That calls core.zhdrv.Bridge(function=f), where f is a Python callable made for this one call: VapourSynth's
 *      binding turns it into a VSFunction. (One that is kept would keep the core alive for ever.)
 *   4. bridge() lets f run with the arguments and the result of the noted call, so that the binding converts both.
 * A Python exception that leaves dispatch.forward() becomes the call's error, its text unchanged. KeyboardInterrupt
 * takes another way: the binding puts it into the result itself and takes it out again in the Python that called.
 *
 * Nothing is linked: every Python function is looked up in the running process, at the call. Loading the plugin
 * therefore costs nothing, and one binary serves every Python version. */

#ifdef _WIN32
#include <windows.h>
#else
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#endif
#include <stddef.h>
#include <stdio.h>

#include <VapourSynth4.h>

/* A C function of the Python that runs in this process; NULL where none does. */
static void *in_python(const char *name) {
#ifdef _WIN32
    /* What this library has, VapourSynth's own binding gets from it, too: it's there before the first script runs. */
    HMODULE library = GetModuleHandleA("python3.dll");
    return library ? (void *)GetProcAddress(library, name) : NULL;
#else
    return dlsym(RTLD_DEFAULT, name);
#endif
}

/* Declares a pointer to one of Python's C functions, of its stable ABI all of them. Objects are void * here. */
#define PYTHON(result, name, ...) result (*name)(__VA_ARGS__) = (result (*)(__VA_ARGS__))in_python(#name)

/* What Expand, Mask, Train and Still have in common: how to see the clip, and how to learn from it. */
#define LEARNING                                                                                                       \
    "preset:data:opt;n_exp_down:int:opt;n_exp_up:int:opt;epochs:int:opt;lr:float:opt;alpha:float:opt;"      \
    "seed:int:opt;device:data:opt;still:int:opt;matrix_in:data:opt;transfer_in:data:opt;range_in:data:opt;"            \
    "cache:data:opt;precision:data:opt;train_range:int[]:opt;shots:data[]:opt;"

/* What Expand and Mask add: where the network comes from, and how frames are computed. */
#define EXPANDING                                                                                                      \
    "weights:data:opt;train:int:opt;when:data:opt;strength:float:opt;peak:float:opt;white:float:opt;tile:int[]:opt;"   \
    "tile_pad:int:opt;num_streams:int:opt;graphics:data:opt;"

/* Every function of core.zhdrv. Expand is done by functions.expand, WriteEXR by functions.write_exr, and so on. */
static const struct function {
    const char *name, *arguments, *result;
} functions[] = {
    {"Expand", "clip:vnode;" LEARNING EXPANDING, "clip:vnode;"},
    {"Mask", "clip:vnode;" LEARNING EXPANDING, "clip:vnode;"},
    {"Train", "clip:vnode;" LEARNING "path:data:opt;", "path:data;"},
    {"Still",
     "clip:vnode;path:data;frame:int:opt;" LEARNING
     "weights:data:opt;train:int:opt;strength:float:opt;peak:float:opt;white:float:opt;tile:int[]:opt;"
     "tile_pad:int:opt;graphics:data:opt;",
     "path:data;"},
    {"WriteEXR",
     "clip:vnode;filename:data;compression:data:opt;half:int:opt;first:int:opt;overwrite:int:opt;white:float:opt;",
     "clip:vnode;"},
    {"Version", "", "version:data;torch:data;device:data;path:data;"},
};

/* The call that waits in this thread for its Python callable; NULL when none does. */
static _Thread_local const struct call {
    const VSMap *arguments;
    VSMap *result;
    VSCore *core;
} *current;

/* Makes the pending Python exception the call's error. The format takes the function's name and the exception. */
static void set_python_error(VSMap *result, const char *format, const char *name, const VSAPI *vsapi) {
    PYTHON(void *, PyErr_GetRaisedException, void);
    PYTHON(void *, PyUnicode_FromFormat, const char *, ...);
    PYTHON(const char *, PyUnicode_AsUTF8AndSize, void *, ptrdiff_t *);
    PYTHON(void, PyErr_Clear, void);
    PYTHON(void, Py_DecRef, void *);

    void *error = PyErr_GetRaisedException();
    void *text = PyUnicode_FromFormat(format, name, error);
    const char *utf8 = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    vsapi->mapSetError(result, utf8 ? utf8 : "zhdrv: failed with an error that cannot be written as text");
    PyErr_Clear();
    Py_DecRef(text);
    Py_DecRef(error);
}

static void VS_CC forward(const VSMap *in, VSMap *out, void *data, VSCore *core, const VSAPI *vsapi) {
    const char *name = ((const struct function *)data)->name;

    PYTHON(int, Py_IsInitialized, void);
    if (!Py_IsInitialized || !Py_IsInitialized()) {
        char message[160];
        snprintf(message, sizeof message,
                 "zhdrv.%s: needs a program that runs Python (python, vspipe, a script editor), and this one does not",
                 name);
        vsapi->mapSetError(out, message);
        return;
    }
    PYTHON(int, PyGILState_Ensure, void);
    PYTHON(void, PyGILState_Release, int);
    PYTHON(void *, PyImport_ImportModule, const char *);
    PYTHON(void *, PyObject_CallMethod, void *, const char *, const char *, ...);
    PYTHON(void, Py_DecRef, void *);

    const struct call call = {in, out, core}, *outer = current;
    const int lock = PyGILState_Ensure();
    current = &call;
    void *module = PyImport_ImportModule("vszhdrv.plugin.dispatch");
    void *done = module ? PyObject_CallMethod(module, "forward", "s", name) : NULL;
    current = outer;
    if (!module)
        set_python_error(out, "zhdrv.%s: this program's Python cannot import vszhdrv: %S", name, vsapi);
    else if (!done)
        set_python_error(out, "zhdrv.%s: %S", name, vsapi);
    Py_DecRef(done);
    Py_DecRef(module);
    PyGILState_Release(lock);
}

static void VS_CC bridge(const VSMap *in, VSMap *out, void *data, VSCore *core, const VSAPI *vsapi) {
    (void)data;
    const struct call *call = current;
    if (!call || call->core != core) {
        vsapi->mapSetError(out, call ? "this call belongs to another core than the one that Python uses in this thread"
                                     : "zhdrv.Bridge: is for vszhdrv's own use; call Expand");
        return;
    }
    current = NULL;
    VSFunction *function = vsapi->mapGetFunction(in, "function", 0, NULL);
    vsapi->callFunction(function, call->arguments, call->result);
    vsapi->freeFunction(function);
}

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *vspapi) {
    vspapi->configPlugin("org.vszhdrv.zhdrv", "zhdrv", "Zero-shot HDR video reconstruction", PLUGIN_VERSION,
                         VS_MAKE_VERSION(VAPOURSYNTH_API_MAJOR, 0), 0, plugin);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        vspapi->registerFunction(functions[i].name, functions[i].arguments, functions[i].result, forward,
                                 (void *)&functions[i], plugin);
    vspapi->registerFunction("Bridge", "function:func;", "", bridge, NULL, plugin);
}
