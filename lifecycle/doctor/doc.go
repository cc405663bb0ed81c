// Package doctor looks at the machine as a container would need it. Run tries each thing for real where that can be done
// without leaving anything behind (it clones a user namespace, opens the devices, writes an attribute below the store)
// and gives a Report: one Check for each thing, with a verdict, what was found, what it costs the user, and the line
// that mends it, ready to be pasted or to be sent to an administrator.
//
// A check that fails means that `run` cannot work; one that warns takes away something less. No check can hang the
// others: each has a time limit, after which its verdict is that there was no answer.
package doctor
