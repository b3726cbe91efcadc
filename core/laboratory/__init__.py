"""Looking at many runs: listing them, holding them against each other, telling others about them."""
