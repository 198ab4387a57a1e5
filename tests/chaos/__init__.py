"""One bad day: what is done to the product on purpose, and what has to be whole afterwards.

seam      a shim before libc: kills, torn writes, full and failing disks, clocks that jump, at the n-th call
lives     children that do something under a fault and tell what they were promised
acts      a chat, the memory, the store, a night, a training, a forgetting, ...: done, and looked at
damage    files that were torn while nobody looked
hostile   packs and requests of strangers
run       draws the faults, lives the lives, counts
"""
