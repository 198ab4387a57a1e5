"""One bad day: what is done to the product on purpose, and what has to be whole afterwards.

seam      a shim before libc: kills, torn writes, full and failing disks, clocks that jump, at the n-th call
lives     children that do something under a fault and tell what they were promised
acts      what is disturbed: by_day, by_night, checkpoints, moving, served
damage    files that were torn while nobody looked
hostile   packs and requests of strangers
run       draws the faults, lives the lives, counts
"""
