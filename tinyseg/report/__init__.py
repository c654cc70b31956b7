"""What people look at: pictures of runs and predictions (`plots`), what a network costs (`profile`)."""
